/**
 * The conversation, windowed: stretches of it that are far from what is seen are empty boxes of the right height, so
 * that a thread of many thousand events scrolls like a short one.
 */

import { sequence } from "../model/thread_view.js";
import { jumpToEnd, route, thread, threadError, tick } from "../store.js";
import { Component, html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact.js";
import { BlockView } from "./blocks.js";
import { Icon } from "./icons.js";

/** @typedef {import("../model/types.js").Chunk} Chunk */

/** Stretches this near to what is seen are drawn. */
const MARGIN_PX = 1200;
/** Height of an entry that was never drawn. */
const GUESS_PX = 64;
/** Closer to the end than this, the page follows what comes. */
const NEAR_PX = 90;

export function Conversation() {
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const isFollowing = useRef(true);
  /** The page shows the event that its address names until a person scrolls: what still arrives must not move it. */
  const isHeld = useRef(false);
  const [isAway, setAway] = useState(false);
  const [near, setNear] = useState(/** @type {ReadonlySet<number>} */ (new Set()));
  const observer = useObserver(scroller, setNear);
  const open = thread.value;
  const changes = tick.value;
  const target = route.value.eventId;
  const chunks = open?.view.chunks ?? [];
  const isThere = Boolean(open && target && sequence(open.view.lastId) >= sequence(target));
  const pinned = useMemo(
    () => (isThere ? open?.view.blockOf(target)?.chunk.index : undefined),
    [isThere, target, open?.id],
  );

  useEffect(() => {
    isHeld.current = Boolean(route.peek().eventId);
    isFollowing.current = !isHeld.current;
    setNear(new Set());
    setAway(false);
  }, [open?.id]);
  useLayoutEffect(() => {
    const element = scroller.current;
    if (element && isFollowing.current) element.scrollTop = element.scrollHeight;
  }, [changes, near, open?.id]);
  useTarget(target, pinned !== undefined);

  const onScroll = () => {
    const element = /** @type {HTMLElement} */ (scroller.current);
    const isNear = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_PX;
    isFollowing.current = isNear && !isHeld.current;
    setAway(!isNear);
  };
  useEffect(() => {
    if (jumpToEnd.value) toEnd();
  }, [jumpToEnd.value]);
  const release = () => (isHeld.current = false);
  const toEnd = () => {
    release();
    isFollowing.current = true;
    setAway(false);
    const element = /** @type {HTMLElement} */ (scroller.current);
    element.scrollTop = element.scrollHeight;
  };
  if (threadError.value) return html`<div class="empty"><p>${threadError.value}</p></div>`;
  return html`<div class="conversation" ref=${scroller} onScroll=${onScroll} onWheel=${release}
    onPointerDown=${release} onKeyDown=${release} tabindex="-1">
    <div class="column">
      ${chunks.map((chunk) => {
        const isDrawn = near.has(chunk.index) || chunk.index === pinned || chunk.index >= chunks.length - 2;
        return html`<${ChunkView} key=${`${open?.id}-${chunk.index}`} chunk=${chunk} rev=${chunk.rev} isDrawn=${isDrawn} observer=${observer} />`;
      })}
    </div>
    ${isAway && html`<button type="button" class="to-end" onClick=${toEnd}><${Icon} name="down" size=${15} />Latest</button>`}
  </div>`;
}

/**
 * Tells which chunks are near to what is seen.
 * @param {{ current: HTMLElement | null }} scroller
 * @param {(update: (before: ReadonlySet<number>) => ReadonlySet<number>) => void} setNear
 */
function useObserver(scroller, setNear) {
  const [observer, setObserver] = useState(/** @type {IntersectionObserver | null} */ (null));
  useLayoutEffect(() => {
    const made = new IntersectionObserver(
      (entries) =>
        setNear((before) => {
          const after = new Set(before);
          for (const entry of entries) {
            const index = Number(/** @type {HTMLElement} */ (entry.target).dataset.index);
            if (entry.isIntersecting) after.add(index);
            else after.delete(index);
          }
          return after;
        }),
      { root: scroller.current, rootMargin: `${MARGIN_PX}px 0px` },
    );
    setObserver(made);
    return () => made.disconnect();
  }, []);
  return observer;
}

/**
 * Brings the event that the address names into view, once it is there.
 * @param {string} target
 * @param {boolean} isThere
 */
function useTarget(target, isThere) {
  useEffect(() => {
    if (!target || !isThere) return;
    const id = thread.peek()?.view.blockOf(target)?.id;
    const element = id ? document.getElementById(`e-${id}`) : null;
    if (!element) return;
    element.scrollIntoView({ block: "center" });
    element.classList.add("is-target");
    const timer = setTimeout(() => element.classList.remove("is-target"), 4000);
    return () => clearTimeout(timer);
  }, [target, isThere]);
}

/** One stretch. Drawn again only when something in it changed. */
class ChunkView extends Component {
  constructor() {
    super();
    /** @type {HTMLElement | null} */
    this.element = null;
  }

  /** @param {any} next */
  shouldComponentUpdate(next) {
    const { chunk, rev, isDrawn, observer } = this.props;
    return next.chunk !== chunk || next.rev !== rev || next.isDrawn !== isDrawn || next.observer !== observer;
  }

  componentDidMount() {
    this._observe();
    this._measure();
  }

  /** @param {any} before */
  componentDidUpdate(before) {
    if (before.observer !== this.props.observer) this._observe();
    this._measure();
  }

  componentWillUnmount() {
    if (this.element) this.props.observer?.unobserve(this.element);
  }

  _observe() {
    if (this.element) this.props.observer?.observe(this.element);
  }

  _measure() {
    if (this.props.isDrawn && this.element) this.props.chunk.height = this.element.offsetHeight;
  }

  /** @param {{ chunk: Chunk, isDrawn: boolean }} props */
  render({ chunk, isDrawn }) {
    const shown = chunk.blocks.filter((block) => !block.isHidden);
    const style = isDrawn ? { minHeight: "" } : { minHeight: `${chunk.height || shown.length * GUESS_PX}px` };
    return html`<div class="chunk" style=${style} data-index=${chunk.index} ref=${(/** @type {any} */ element) => (this.element = element)}>
      ${isDrawn && shown.map((block) => html`<${MemoBlock} key=${block.key} block=${block} rev=${block.rev} redraw=${() => this.forceUpdate()} />`)}
    </div>`;
  }
}

/** An entry, drawn again only when it changed. */
class MemoBlock extends Component {
  /** @param {any} next */
  shouldComponentUpdate(next) {
    return next.rev !== this.props.rev || next.block !== this.props.block;
  }

  /** @param {any} props */
  render({ block, redraw }) {
    const toggle = (/** @type {any} */ event) => {
      const isOpen = event?.currentTarget?.getAttribute("aria-expanded") === "true";
      block.isOpen = !isOpen;
      block.rev += 1;
      redraw();
    };
    return html`<${BlockView} block=${block} toggle=${toggle} />`;
  }
}
