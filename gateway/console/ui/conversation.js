/**
 * The conversation, windowed: stretches of it that are far from what is seen are empty boxes of the right height, in two
 * tiers, so that a thread of many thousand events scrolls, and grows, like a short one.
 */

import { sequence } from "../model/thread_view.js";
import { jumpToEnd, route, thread, threadError, tick } from "../store.js";
import { Component, html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact.js";
import { BlockView } from "./blocks.js";
import { Icon } from "./icons.js";
import { Watcher, Windowed } from "./windowed.js";

/** @typedef {import("../model/types.js").Chunk} Chunk */

/** Closer to the end than this, the page follows what comes. */
const NEAR_PX = 90;
/** Height of an entry that was never drawn. */
const GUESS_PX = 64;

export function Conversation() {
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const isFollowing = useRef(true);
  /** The page shows the event that its address names until a person scrolls: what still arrives must not move it. */
  const isHeld = useRef(false);
  const [isAway, setAway] = useState(false);
  const open = thread.value;
  const changes = tick.value;
  const target = route.value.eventId;
  const sections = open?.view.sections ?? [];
  const isThere = Boolean(open && target && sequence(open.view.lastId) >= sequence(target));
  const pinned = useMemo(() => (isThere ? open?.view.blockOf(target)?.chunk : undefined), [isThere, target, open?.id]);
  const follow = () => {
    const element = scroller.current;
    if (element && isFollowing.current) element.scrollTop = element.scrollHeight;
  };
  const watcher = useMemo(() => new Watcher(scroller, follow), [threadError.value]);

  useEffect(() => {
    isHeld.current = Boolean(route.peek().eventId);
    isFollowing.current = !isHeld.current;
    setAway(false);
  }, [open?.id]);
  useLayoutEffect(follow, [changes, open?.id]);
  useEffect(() => () => watcher.close(), [watcher]);
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
    follow();
  };
  if (threadError.value) return html`<div class="empty"><p>${threadError.value}</p></div>`;
  return html`<div class="conversation" ref=${scroller} onScroll=${onScroll} onWheel=${release}
    onPointerDown=${release} onKeyDown=${release} tabindex="-1">
    <div class="column">
      ${sections.map((section) => {
        const shown = section === pinned?.section ? pinned : undefined;
        const isKept = Boolean(shown) || section.index >= sections.length - 2;
        return html`<${SectionView} key=${section.index} box=${section} rev=${section.rev} isKept=${isKept} pinned=${shown} watcher=${watcher} />`;
      })}
    </div>
    ${isAway && html`<button type="button" class="to-end" onClick=${toEnd}><${Icon} name="down" size=${15} />Latest</button>`}
  </div>`;
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

/** A stretch of stretches. Its last two are always drawn: at the end of the conversation they are what grows. */
class SectionView extends Windowed {
  /** @param {any} next */
  isChanged(next) {
    return next.pinned !== this.props.pinned;
  }

  guessPx() {
    /** @type {Chunk[]} */
    const chunks = this.props.box.chunks;
    return chunks.reduce((sum, chunk) => sum + (chunk.height || guessPx(chunk)), 0);
  }

  content() {
    const { box, pinned, watcher } = this.props;
    return box.chunks.map((/** @type {Chunk} */ chunk, /** @type {number} */ place) => {
      const isKept = chunk === pinned || place >= box.chunks.length - 2;
      return html`<${ChunkView} key=${chunk.index} box=${chunk} rev=${chunk.rev} isKept=${isKept} watcher=${watcher} />`;
    });
  }
}

/** One stretch. */
class ChunkView extends Windowed {
  guessPx() {
    return guessPx(this.props.box);
  }

  content() {
    const shown = shownOf(this.props.box);
    return shown.map(
      (block) =>
        html`<${MemoBlock} key=${block.key} block=${block} rev=${block.rev} redraw=${() => this.forceUpdate()} />`,
    );
  }
}

/** @param {Chunk} chunk */
function shownOf(chunk) {
  return chunk.blocks.filter((block) => !block.isHidden);
}

/** Height of a stretch that was never drawn. @param {Chunk} chunk */
function guessPx(chunk) {
  return shownOf(chunk).length * GUESS_PX;
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
