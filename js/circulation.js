// @ts-check
// What the pack adds to ComfyUI's front end: which of its nodes gets which widget.

import { app } from "../../scripts/app.js";
import { BlockList, Target } from "./blocks.js";
import { Chart } from "./chart.js";
import { Painter } from "./painter.js";
import { keep, kept, listen, results } from "./results.js";
import { Sheet } from "./sheet.js";
import { Status } from "./status.js";
import { colour, html, theme } from "./theme.js";
import { joined, learn, lineOf, say } from "./words.js";

const MEASURE = "stability chart"; // the node's property that holds the measure which was chosen
const BEHIND = "last run behind the grid"; // the node's property that says whether it is to be seen
const MARGIN = 5; // around our elements, on the canvas
const STATUS = 38; // least height of a line about a run
const PADDING = 6; // in that line, above and below together, as in the style sheet

// Milliseconds for which the front end has no event.
const PALETTE_SET = 100; // after the event of a new palette, till its CSS variables have their values
const NODES_DRAWN = [0, 100, 500]; // after a workflow is loaded, till Nodes 2.0 has put its elements in: at once, soon, or late on a slow machine
const DOWNLOAD_STARTED = 1000; // after the click, till the browser has read the blob

const widgets = {
    StabilityProbe: addChart,
    StabilityReadout: addChart,
    CirculationControl: addStatus,
    CirculationAdaptive: addStatus,
    CirculationSweep: addStatus,
    CirculationSchedule: addPainter,
    ComparisonSheet: addSheet,
    CirculationGrid: addSheet,
    StabilityCompare: addNothing,
    SaveStability: addNothing,
    LoadStability: addNothing,
    ModelBlocks: addBlocks,
};

const views = new WeakMap(); // node → its view: {element?, redraw(), shows?, show(result)?, chart?, line?, problem?}; `shows` names what it shows of a result
const notes = new WeakMap(); // node → the widget that its error got, where it has no other element of ours
const heights = new WeakMap(); // element → how high its error is
const grown = new WeakMap(); // node → the height that it had before its error, and that it got
const filled = new WeakSet(); // the nodes that show a result
let adoptionTimer = null;

/** @param {GraphNode} node */
function addChart(node) {
    const commands = { s: () => savePicture(node, chart), c: () => copyTable(node, chart) };
    const chart = new Chart((measure) => node.setProperty(MEASURE, measure), commands, new Target(takers, putBlocks));
    // below the readout's chart comes its figure, which gets the room
    addWidget(node, "chart", chart.element, 190, node.comfyClass === "StabilityReadout");
    chart.element.addEventListener("contextmenu", (event) => {
        const commands = chartCommands(node, chart);
        if (!commands.length) return;
        event.preventDefault();
        event.stopPropagation();
        new LiteGraph.ContextMenu(commands, { event });
    });
    const show = (result) => chart.show(result.chart, node.properties[MEASURE]);
    return { chart, element: chart.element, shows: "chart", show, redraw: () => chart.draw() };
}

/** @param {GraphNode} node */
function addStatus(node) {
    const status = new Status();
    addWidget(node, "status", status.element, STATUS, true);
    const show = (result) => status.show(result);
    const view = { element: status.element, line: status.line, problem: null, shows: "text", show, redraw: () => status.draw() };
    new ResizeObserver(() => makeRoom(node, view)).observe(status.line);
    return view;
}

/** @param {GraphNode} node */
function addPainter(node) {
    const text = node.widgets.find((widget) => widget.name === "grid");
    text.hidden = true; // for the canvas
    text.options.hidden = true; // for Nodes 2.0
    text.computeSize = () => [0, -4]; // older front ends leave room for what is hidden
    const write = (value) => setValue(text, value);
    const linked = () => node.isInputConnected(node.findInputSlot("grid"));
    const run = { data: lastRun, wanted: () => node.properties[BEHIND] ?? true, want: (value) => node.setProperty(BEHIND, value) };
    const painter = new Painter(() => text.value, write, linked, run);
    addWidget(node, "painter", painter.element, 280);
    node.setSize([Math.max(node.size[0], 380), Math.max(node.size[1], 380)]);
    const read = () => painter.read();
    for (const event of ["onConfigure", "onConnectionsChange"]) {
        const before = node[event];
        node[event] = function (...args) {
            read();
            return before?.apply(this, args);
        };
    }
    return { element: painter.element, redraw: () => painter.draw() };
}

/** What the chart holds that was shown anything last, if it can be laid behind a grid; or null. */
function lastRun() {
    const charts = [...everyNode()].map(([, node]) => views.get(node)?.chart).filter((chart) => chart?.points[0]?.unsettled);
    return charts.sort((one, other) => other.shown - one.shown)[0]?.data ?? null;
}

/** @param {GraphNode} node */
function addSheet(node) {
    const sheet = new Sheet();
    addWidget(node, "sheet", sheet.element, 280);
    node.setSize([Math.max(node.size[0], 420), Math.max(node.size[1], 640)]);
    const show = (result) => sheet.show(result.comparison, saidOfGrid(result));
    return { element: sheet.element, shows: "comparison", show, redraw: () => sheet.draw() };
}

/** What came of the samplings of a grid; nothing of a sheet, which samples nothing, or where only ComfyUI's history knows of the run. */
function saidOfGrid({ comparison, sampled, text, sentences }) {
    if (sampled === undefined) return undefined;
    const all = comparison.cells.flat();
    const done = all.filter((file) => file).length;
    const values = { settings: comparison.labels.length, done, all: all.length, sampled };
    return joined(say(comparison.running ? "gridRunning" : "grid", values), text && say("last", { line: lineOf({ text, sentences }) }));
}

/** The `blocks` of a node of ours that has such an input. */
function blocksOf(node) {
    return node.comfyClass in widgets && node.widgets?.find((widget) => widget.name === "blocks");
}

/** The nodes whose `blocks` can be written, those that circulate first: [id, title]. */
function takers() {
    const linked = (node) => node.isInputConnected(node.findInputSlot("blocks"));
    const able = [...everyNode()].filter(([, node]) => blocksOf(node) && !linked(node));
    const probes = ([, node]) => node.comfyClass === "StabilityProbe";
    const ordered = [...able.filter((each) => !probes(each)), ...able.filter(probes)];
    return /** @type {[string, string][]} */ (ordered.map(([id, node]) => [id, `${node.title} #${id}`]));
}

function putBlocks(id, words) {
    const node = nodeWith(id);
    if (!node) return;
    setValue(blocksOf(node), words);
    node.setDirtyCanvas(true, true);
}

/** @param {GraphNode} node */
function addBlocks(node) {
    const list = new BlockList(new Target(takers, putBlocks));
    addWidget(node, "picks", list.element, 220);
    node.setSize([Math.max(node.size[0], 300), Math.max(node.size[1], 400)]);
    return { element: list.element, shows: "attentions", show: ({ attentions }) => list.show(attentions), redraw: () => list.draw() };
}

/** Of a node that says nothing unless something went wrong. */
function addNothing() {
    return { redraw() {} };
}

/**
 * The least height is the element's, in pixels, as in the style sheet. Without `fixed` it grows with its node.
 * @param {GraphNode} node
 */
function addWidget(node, name, element, least, fixed = false) {
    const options = {
        margin: MARGIN,
        getMinHeight: () => (heights.get(element) ?? least) + 2 * MARGIN,
        hideOnZoom: false,
        hideInPanel: true, // the side panel would take the element away from the node
        serialize: false, // not in the prompt
        getValue: () => "",
        setValue: () => {},
    };
    const widget = node.addDOMWidget(name, `circulation_${name}`, element, options);
    widget.serialize = false; // nor in the workflow
    if (!fixed) {
        element.classList.add("widget-expands"); // in Nodes 2.0 of older front ends
    } else {
        widget.computeLayoutSize = undefined;
        widget.computeSize = (width) => [width ?? 0, options.getMinHeight()];
    }
    passOn(element);
    return widget;
}

/** As a step of its own for undo, however it came about. */
function setValue(widget, value) {
    app.canvas.emitBeforeChange();
    widget.value = value;
    app.canvas.emitAfterChange();
}

/** On the classic canvas: what the wheel and the middle button do there, they do over the element too. Nodes 2.0 sees to it itself. */
function passOn(element) {
    const pass = (name, concerns, method) =>
        element.addEventListener(name, (event) => {
            if (LiteGraph.vueNodesMode || !concerns(event)) return;
            event.preventDefault(); // or Linux pastes with the middle button
            app.canvas[method](event);
        });
    const scrolls = (rows) => rows && rows.scrollHeight > rows.clientHeight;
    pass("wheel", ({ target, ctrlKey }) => ctrlKey || !scrolls(target.closest(".rows")), "processMouseWheel");
    pass("pointerdown", ({ button }) => button === 1, "processMouseDown");
    pass("pointermove", ({ buttons }) => buttons & 4, "processMouseMove");
    pass("pointerup", ({ button }) => button === 1, "processMouseUp");
}

/** Every node of the workflow with its id as the server has it, such as "10:1" inside of subgraphs. */
function* everyNode(graph = app.rootGraph, before = "") {
    for (const node of graph.nodes) {
        yield [`${before}${node.id}`, node];
        if (node.subgraph) yield* everyNode(node.subgraph, `${before}${node.id}:`);
    }
}

/** The node of the workflow with this id, or null. */
function nodeWith(id) {
    for (const [nodeId, node] of everyNode()) {
        if (nodeId === id) return node;
    }
    return null;
}

function show(id, result) {
    const node = nodeWith(id);
    if (node) fill(node, result);
}

function fill(node, result) {
    const view = views.get(node);
    if (!view) return;
    complain(node, view, result.error);
    if (!(view.shows in result)) return;
    view.show(result);
    filled.add(node);
    if (view.chart) redraw((other) => other.comfyClass === "CirculationSchedule");
}

/** Shows what went wrong on the node itself: newer front ends say only that it failed. Without an error it takes it away. */
function complain(node, view, error) {
    if (!error) {
        if (!view.problem) return;
        view.problem.remove();
        view.problem = null;
        heights.delete(view.element);
        view.element?.style.removeProperty("min-height");
        if (notes.has(node)) {
            node.removeWidget(notes.get(node));
            notes.delete(node);
            view.element = null;
        }
        giveBack(node);
        return;
    }
    if (!view.element) {
        view.element = html("div", { class: "circulation status" });
        view.redraw = () => view.element && colour(view.element, theme());
        view.redraw();
        notes.set(node, addWidget(node, "status", view.element, STATUS, true));
    }
    if (!view.problem) {
        view.problem = html("div", { class: "problem", role: "alert" });
        view.element.prepend(view.problem);
        new ResizeObserver(() => makeRoom(node, view)).observe(view.problem);
    }
    view.problem.textContent = view.problem.title = error;
}

/** So that all of a message or a line can be read on a node that has nothing else to make smaller. */
function makeRoom(node, { element, problem, line }) {
    const text = problem ?? line;
    if (!text?.offsetHeight || !element.matches(".status")) return;
    heights.set(element, Math.max(STATUS, text.offsetHeight + PADDING));
    element.style.minHeight = `${heights.get(element)}px`; // for Nodes 2.0
    if (LiteGraph.vueNodesMode) return;
    giveBack(node); // the text has become shorter, or got more width
    const [width, from] = node.size;
    const to = Math.max(from, node.computeSize()[1]);
    grown.set(node, { from, to });
    if (to > from) node.setSize([width, to]);
    node.setDirtyCanvas(true, true); // elements get their places as the canvas is drawn
}

function giveBack(node) {
    const { from, to } = grown.get(node) ?? {};
    grown.delete(node);
    if (from < to && node.size[1] === to) node.setSize([node.size[0], from]);
}

/** A node that was put into a subgraph is another one there, under the same number: it takes its result along. */
function adoptAfterSubgraph() {
    adoptionTimer = null;
    const nodes = [...everyNode()];
    const left = results().filter(([id]) => !nodes.some(([nodeId]) => nodeId === id));
    const number = (id) => id.slice(id.lastIndexOf(":") + 1);
    for (const [id, node] of nodes) {
        if (filled.has(node)) continue;
        const [, result] = left.find(([old, result]) => number(old) === number(id) && views.get(node)?.shows in result) ?? [];
        if (!result) continue;
        fill(node, result);
        keep(id, result);
    }
}

/** Nodes 2.0 of older front ends goes on showing the elements of the nodes that were there before under the same ids. */
function remountDetached() {
    for (const node of app.canvas.graph.nodes) {
        const element = views.get(node)?.element;
        if (element && !element.isConnected) {
            const former = document.querySelector(`[data-node-id="${node.id}"] .${[...element.classList].join(".")}`);
            former?.replaceWith(element);
        }
    }
}

function redraw(which = (node) => true) {
    for (const [, node] of everyNode()) which(node) && views.get(node)?.redraw();
}

function chartCommands(node, chart) {
    if (!chart?.points.length) return [];
    return [
        { content: say("saveChart"), callback: () => savePicture(node, chart) },
        { content: say("copyChart"), callback: () => copyTable(node, chart) },
    ];
}

async function savePicture(node, chart) {
    download(await chart.png(), node, "png");
}

/** A page that is not on this machine has a clipboard only with https. */
async function copyTable(node, chart) {
    if (navigator.clipboard) await navigator.clipboard.writeText(chart.csv());
    else download(new Blob([chart.csv()], { type: "text/csv" }), node, "csv");
}

function download(blob, node, ending) {
    const link = html("a", { href: URL.createObjectURL(blob), download: `${node.title.replace(/[^\w-]+/g, "-")}.${ending}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), DOWNLOAD_STARTED);
}

app.registerExtension({
    name: "circulation.panels",

    init: learn,

    setup() {
        document.head.append(html("link", { rel: "stylesheet", href: new URL("circulation.css", import.meta.url) }));
        const reports = (id) => views.get(nodeWith(id))?.shows === "text";
        listen(show, (type) => type in widgets, reports);
        app.ui.settings.addEventListener("Comfy.ColorPalette.change", () => setTimeout(() => redraw(), PALETTE_SET));
    },

    nodeCreated(node) {
        const add = widgets[node.comfyClass];
        if (!add) return;
        views.set(node, add(node));
        adoptionTimer ??= setTimeout(adoptAfterSubgraph); // when the node has its id and its graph
    },

    /** A workflow was loaded: opened, come back to, or an undone state of it. */
    afterConfigureGraph() {
        for (const [id, result] of results()) show(id, result);
        for (const wait of NODES_DRAWN) setTimeout(remountDetached, wait);
    },

    /** Outputs came from ComfyUI's history. */
    onNodeOutputsUpdated(outputs) {
        for (const [, node] of everyNode()) {
            const id = node.graph === app.rootGraph ? String(node.id) : `${node.graph.id}:${node.id}`;
            const result = kept(outputs[id]);
            if (!result) continue;
            fill(node, result);
            const probe = nodeWith(result.chart?.probe);
            if (probe && !filled.has(probe)) fill(probe, result);
        }
    },

    getNodeMenuItems(node) {
        return chartCommands(node, views.get(node)?.chart);
    },
});
