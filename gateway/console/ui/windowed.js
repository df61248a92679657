/** A box whose content is there only while it is near to what is seen; else it is empty, and as high as it was. */

import { Component, html } from "../vendor/preact.js";

/** Boxes this near to what is seen are drawn. */
const MARGIN_PX = 1200;

/** Tells boxes whether they are near to what is seen. */
export class Watcher {
  /**
   * @param {{ current: HTMLElement | null }} scroller
   * @param {() => void} onDrawn called when boxes were filled or emptied, before that is painted
   */
  constructor(scroller, onDrawn) {
    this.onDrawn = onDrawn;
    this._scroller = scroller;
    /** @type {WeakMap<Element, (entry: IntersectionObserverEntry) => void>} */
    this._listeners = new WeakMap();
    /** @type {IntersectionObserver | null} */
    this._observer = null;
  }

  /** @param {Element} element @param {(entry: IntersectionObserverEntry) => void} listener */
  watch(element, listener) {
    this._observer ??= new IntersectionObserver(
      (entries) => {
        for (const entry of entries) this._listeners.get(entry.target)?.(entry);
      },
      { root: this._scroller.current, rootMargin: `${MARGIN_PX}px 0px` },
    );
    this._listeners.set(element, listener);
    this._observer.observe(element);
  }

  /** @param {Element} element */
  unwatch(element) {
    this._observer?.unobserve(element);
  }

  close() {
    this._observer?.disconnect();
  }
}

/**
 * One box, drawn again only when something in it changed. A subclass says what is in it.
 *
 * Its properties: `box` with the height that was last measured, `rev` that grows with every change inside, `isKept` for
 * a box that is drawn wherever it is, and `watcher`.
 */
export class Windowed extends Component {
  constructor() {
    super();
    this.state = { isNear: false };
    /** @type {HTMLElement | null} */
    this.element = null;
  }

  /** What is in the box. @returns {any} */
  content() {
    return null;
  }

  /** Its height before it was ever drawn. */
  guessPx() {
    return 0;
  }

  /** True if the content depends on a property of its own that changed. @param {any} _next */
  isChanged(_next) {
    return false;
  }

  /** @param {any} next @param {any} state */
  shouldComponentUpdate(next, state) {
    const { box, rev, isKept } = this.props;
    const isSame = next.box === box && next.rev === rev && next.isKept === isKept && !this.isChanged(next);
    return !isSame || state.isNear !== this.state.isNear;
  }

  componentDidMount() {
    const element = /** @type {HTMLElement} */ (this.element);
    this.props.watcher.watch(element, (/** @type {IntersectionObserverEntry} */ entry) => {
      if (this.state.isNear && !entry.isIntersecting) this.props.box.height = entry.boundingClientRect.height;
      this.setState({ isNear: entry.isIntersecting });
    });
  }

  /** @param {any} _props @param {any} state */
  componentDidUpdate(_props, state) {
    if (state.isNear !== this.state.isNear) this.props.watcher.onDrawn();
  }

  componentWillUnmount() {
    this.props.watcher.unwatch(/** @type {HTMLElement} */ (this.element));
  }

  /** @param {any} props @param {any} state */
  render({ box, isKept }, { isNear }) {
    const isDrawn = isKept || isNear;
    const style = { minHeight: isDrawn ? "" : `${box.height || this.guessPx()}px` };
    return html`<div class="window" style=${style} ref=${(/** @type {any} */ element) => (this.element = element)}>
      ${isDrawn && this.content()}
    </div>`;
  }
}
