// @ts-check
// What came of the runs, by graph and node: kept for this browser tab, so that it is there again after another workflow
// was looked at and after a reload. Our events name the graph that they belong to: the one on the screen may be another by then.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { say } from "./words.js";

const PREFIX = "circulation:";
const MOST_POINTS = 512; // of a chart; from there on every second is dropped
const MOST_RESULTS = 60;
const WRITE_EVERY = 500; // milliseconds: a run sends a point for each step, and writing them all is slow

const unwritten = new Map(); // key → result, not yet in the tab's storage
let timer = null;

/**
 * Listens to the server.
 * @param {(node: string, result: object) => void} changed is called with each new result of the graph on the screen
 * @param {(type: string) => boolean} ours says whether nodes of this type are ours
 * @param {(node: string) => boolean} reports says whether this node of the graph on the screen says what came of a run
 */
export function listen(changed, ours, reports) {
    let cached = { prompt_id: null, nodes: [] };
    const graphs = { prompt: null, graph: null }; // of the prompt that was heard of last; or a promise of its graph
    const receive = (graph, node, update) => {
        const key = `${graph}/${node}`;
        const result = update(read(key));
        store(key, result);
        if (graph === app.rootGraph.id) changed(node, result);
    };
    const subscribe = (event, update) =>
        api.addEventListener(event, ({ detail }) => {
            // a prompt that was queued without its workflow is taken for the graph on the screen
            const graph = detail.graph ?? app.rootGraph.id;
            if (graphs.prompt !== detail.prompt) Object.assign(graphs, { prompt: detail.prompt, graph });
            receive(graph, detail.node, (old) => update(old, detail));
        });
    const graphWith = async (prompt) => {
        if (graphs.prompt !== prompt) Object.assign(graphs, { prompt, graph: graphOf(prompt) });
        return graphs.graph; // later also where it is known: what comes first is received first
    };
    const fail = async ({ node_type: type, node_id: node, prompt_id: prompt }, error) => {
        if (ours(type)) receive(await graphWith(prompt), node, (old) => ({ ...old, error }));
    };
    // the names and contents of these events are set in nodes/engine/comfy/events.py
    subscribe("circulation.stability", withPoint);
    subscribe("circulation.status", (old, { prompt, text, sentences, blocks }) => ({ ...of(prompt, old), text, sentences, blocks, sampled: of(prompt, old).sampled + 1 }));
    api.addEventListener("circulation.refused", ({ detail: { graph: named, nodes } }) => {
        const graph = named ?? app.rootGraph.id;
        for (const [node, { error }] of results(graph)) {
            if (error) receive(graph, node, withoutError); // of the prompt before
        }
        for (const [node, error] of Object.entries(nodes)) receive(graph, node, (old) => ({ ...old, error }));
    });
    api.addEventListener("executing", ({ detail: node }) => {
        const graph = app.rootGraph.id;
        if (node && read(`${graph}/${node}`)?.error) receive(graph, node, withoutError);
    });
    api.addEventListener("executed", async ({ detail: { output, prompt_id: prompt, node, display_node } }) => {
        const [cells, result] = [output?.cell, kept(output)];
        if (!cells && !result) return;
        const graph = await graphWith(prompt);
        receive(graph, display_node ?? node, (old) => (cells ? withCells(old, prompt, cells) : { ...withoutError(old), ...result }));
        // where its sampler did not run, as its latent was in the cache, the probe has heard of nothing
        const { probe } = result?.chart ?? {};
        if (probe) receive(graph, probe, (old) => (old?.prompt === prompt ? old : { prompt, chart: result.chart }));
    });
    api.addEventListener("execution_error", ({ detail }) => fail(detail, detail.exception_message.trim()));
    api.addEventListener("execution_interrupted", ({ detail }) => fail(detail, say("stopped")));
    api.addEventListener("execution_cached", ({ detail }) => (cached = detail));
    api.addEventListener("execution_success", async ({ detail: { prompt_id: prompt } }) => {
        if (cached.prompt_id !== prompt) return;
        const { nodes } = cached;
        const graph = await graphWith(prompt);
        const told = (node) => read(`${graph}/${node}`)?.prompt === prompt; // its sampler ran, though the node itself did not
        for (const node of graph === app.rootGraph.id ? nodes : []) {
            if (reports(node) && !told(node)) receive(graph, node, (old) => ({ text: "", ...withoutError(old), cached: true }));
        }
    });
    addEventListener("pagehide", write);
}

/** What we show of a node's output. */
export function kept(output) {
    const known = { chart: output?.stability, comparison: output?.comparison, attentions: output?.model_blocks };
    const found = Object.entries(known).find(([, values]) => values?.[0]);
    return found && { [found[0]]: found[1][0] };
}

/** Keeps a result of the graph on the screen under another node. */
export function keep(node, result) {
    store(`${app.rootGraph.id}/${node}`, result);
}

/** The results of a graph, of the one on the screen if none is named: [node, result] of each, those that were stored last at the end. */
export function results(graph = app.rootGraph.id) {
    const here = `${PREFIX}${graph}/`;
    const kept = Object.keys(sessionStorage).filter((key) => key.startsWith(here)).map((key) => key.slice(PREFIX.length));
    const all = new Set([...kept, ...[...unwritten.keys()].filter((key) => `${PREFIX}${key}`.startsWith(here))]);
    const found = [...all].map((key) => [key.slice(key.indexOf("/") + 1), read(key)]);
    return found.sort(([, one], [, other]) => (one.written ?? Infinity) - (other.written ?? Infinity) || 0);
}

function withoutError(result) {
    const { error, ...rest } = result ?? {};
    return rest;
}

/** The result with one more point; a new one where the point begins another run. */
function withPoint(old, { prompt, steps, measures, blocks, step, sigma, stages, percent, unsettled }) {
    const continues = old?.prompt === prompt && old.chart.points.at(-1)?.step < step;
    let points = [...(continues ? old.chart.points : []), { step, sigma, stages, percent, unsettled }];
    if (points.length > MOST_POINTS) points = points.filter((_, i) => i % 2 === 0);
    return { prompt, chart: { steps, measures, blocks, points } };
}

/** What is known of a node, to go on with in this run. */
function of(prompt, old) {
    return old?.prompt === prompt ? old : { ...withoutError(old), cached: false, prompt, text: "", sentences: [], sampled: 0 };
}

/** The sheet of a grid that is being sampled, with some more of its cells. */
function withCells(old, prompt, cells) {
    const comparison = old?.comparison?.running === prompt ? structuredClone(old.comparison) : null;
    return { ...of(prompt, old), comparison: cells.reduce((sheet, cell) => withCell(sheet, cell, prompt), comparison) };
}

/** A cell has several images where the latent is a batch. */
function withCell(sheet, { label, row, column, rows, columns, pictures }, running) {
    const width = columns * pictures.length;
    const nothing = () => Array(width).fill(null);
    sheet ??= { running, labels: Array(rows).fill(""), baseline: 0, columns: width, cells: Array.from({ length: rows }, nothing) };
    sheet.labels[row] = label;
    sheet.cells[row].splice(column * pictures.length, pictures.length, ...pictures);
    return sheet;
}

/** ComfyUI's own events do not name the graph, but its queue and its history do. */
async function graphOf(prompt) {
    const now = app.rootGraph.id;
    try {
        const { queue_running: running } = await (await api.fetchApi("/queue")).json();
        const item = running.find((item) => item[1] === prompt) ?? (await (await api.fetchApi(`/history/${prompt}`)).json())[prompt]?.prompt;
        return item?.[3]?.extra_pnginfo?.workflow?.id ?? now;
    } catch {
        return now;
    }
}

function store(key, result) {
    unwritten.set(key, result);
    timer ??= setTimeout(write, WRITE_EVERY);
}

function read(key) {
    return unwritten.get(key) ?? JSON.parse(sessionStorage.getItem(PREFIX + key));
}

function write() {
    timer = null;
    for (const [key, result] of unwritten) {
        const value = JSON.stringify({ ...result, written: Date.now() });
        try {
            sessionStorage.setItem(PREFIX + key, value);
        } catch {
            drop(0); // the storage is full
            sessionStorage.setItem(PREFIX + key, value);
        }
    }
    unwritten.clear();
    drop(MOST_RESULTS);
}

/** Forgets all but the newest. */
function drop(left) {
    const mine = Object.keys(sessionStorage).filter((key) => key.startsWith(PREFIX));
    const age = (key) => JSON.parse(sessionStorage.getItem(key)).written;
    for (const key of mine.sort((a, b) => age(b) - age(a)).slice(left)) sessionStorage.removeItem(key);
}
