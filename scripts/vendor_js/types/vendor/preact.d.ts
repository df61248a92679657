export * from "preact";
export * from "preact/hooks";
export { batch, computed, effect, signal, Signal, ReadonlySignal, untracked, useComputed, useSignal, useSignalEffect } from "@preact/signals";
import type { VNode } from "preact";
export function html(strings: TemplateStringsArray, ...values: unknown[]): VNode<any>;
