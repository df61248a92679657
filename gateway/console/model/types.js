/**
 * The shapes that the console works with. Events are the log's own, see `/events/schema.json`.
 *
 * @typedef {{ id: string, at: number, type: string, thread_id: string, run_id: string | null, turn: number } & Record<string, any>} LogEvent
 * @typedef {{ input_tokens: number, cache_read_tokens: number, cache_write_tokens: number, output_tokens: number, cost_usd: number }} Usage
 * @typedef {{ id: string, title: string, status: "pending" | "in_progress" | "done" | "dropped", note: string }} PlanStep
 * @typedef {{ content: string, status: "pending" | "in_progress" | "completed" | "cancelled" }} Todo
 * @typedef {{ callId: string, tool: string, startedAt: number, ms: number, ok: boolean }} TimedCall
 * @typedef {{ turn: number, id: string, model: string, startedAt: number, modelMs: number, calls: TimedCall[], usage: Usage | null }} TimedTurn
 *
 * One run as its events tell it. Times are milliseconds since 1970, 0 when not reached.
 * @typedef {{
 *   runId: string, task: string, status: "queued" | "running" | "finished" | "failed" | "cancelled",
 *   position: number | null, waitingFor: string, queuedAt: number, startedAt: number, endedAt: number, lastAt: number,
 *   turn: number, model: string, sandbox: string, worker: string, attempt: number, configHash: string, reason: string,
 *   usage: Usage | null, left: Record<string, number>, turns: TimedTurn[], plan: PlanStep[], todos: Todo[],
 *   lastText: string
 * }} RunView
 *
 * One entry of the conversation. `rev` grows with every change, `id` is the event that it links to.
 * @typedef {{
 *   kind: "task" | "note" | "message" | "person" | "tool" | "question" | "changes" | "end" | "gap",
 *   key: string, id: string, at: number, runId: string, rev: number, isHidden: boolean, chunk: Chunk, isOpen: boolean | null
 * } & Record<string, any>} Block
 *
 * A stretch of the conversation that is drawn together or not at all, and a stretch of such stretches. `rev` grows with
 * every change inside, `height` is what was last measured.
 * @typedef {{ index: number, section: Section, blocks: Block[], rev: number, height: number }} Chunk
 * @typedef {{ index: number, chunks: Chunk[], rev: number, height: number }} Section
 *
 * @typedef {{ path: string, size: number, isDeleted: boolean, changes: LogEvent[] }} FileView
 */

export {};
