// @ts-check
// What our elements say, in the language that ComfyUI's menus have. Translations are in locales/*/main.json.
// What the server says comes in phrases, whose English is in nodes/engine/phrases.py.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const ENGLISH = {
    notRun: "Not run yet.",
    cached: "From ComfyUI's cache, not sampled again.",
    lastRun: "Last run: {line}",
    stopped: "Stopped before it was done.",
    blocks: "blocks",
    measure: "Measure",
    byBlock: "instability by block",
    fromTo: "from {least} to {most}",
    blockKeys: "Arrow keys go over blocks and steps, Space picks a block, S saves the chart, C copies its table.",
    nothingMeasured: "Nothing measured yet.",
    step: "step {step} of {steps}",
    none: "none",
    chart: "Stability chart",
    chartRange: "{stage} from {first} to {last}",
    chartKeys: "Arrow keys read the values, S saves the chart, C copies its table.",
    overSteps: "{measure} over {count} steps",
    saveChart: "Save chart as PNG",
    copyChart: "Copy chart as CSV",
    brush: "Brush",
    rows: "rows",
    columns: "columns",
    fill: "fill…",
    fillTheGrid: "Fill the grid",
    "everywhere 1": "everywhere 1",
    "everywhere 0": "everywhere 0",
    "early half": "early half",
    "late half": "late half",
    "middle depth": "middle depth",
    "ramp down": "ramp down",
    painter: "Strength over depth and time.",
    painterHelp: "Drag paints, Shift erases, Ctrl draws a gradient; bars paint rows and columns",
    painterKeys: "Arrow keys move, Space paints, Delete erases, 0 to 4 choose the brush, plus and minus change it, R, C and A paint the row, the column or all.",
    start: "start",
    end: "end of sampling",
    linked: "The grid comes through a link.",
    noGrid: "The text of this node is no grid. Fill it to start anew.",
    depth: "depth {from}–{to} %",
    allDepths: "all depths",
    time: "sampling {from}–{to} %",
    allTimes: "all of sampling",
    back: "Back",
    baseline: "{label} (baseline)",
    cell: "{row}, column {column}",
    gone: "Images of this run are gone. Run it again to see them.",
    noImage: "no image",
    slider: "{cell}, over the baseline's. Arrow keys move the edge, Escape leaves.",
    point: "Point at a cell to compare it with the baseline; click to see it large.",
    nothingCompared: "Nothing compared yet.",
    share: "{percent} % baseline",
    grid: "{settings} settings, {done} images, {sampled} sampled in this run.",
    gridRunning: "{settings} settings, {done} of {all} images, {sampled} sampled in this run.",
    last: "The last: {line}",
    lastRunBehind: "last run",
    lastRunBehindHelp: "Shows behind the grid where the last run was unsettled: instability of each block at each step.",
    presetName: "name",
    keepPreset: "keep this grid…",
    dropPreset: "forget “{name}”",
    change: "change",
    ownPresets: "my own",
    firstBlocks: "first blocks",
    lastBlocks: "last",
    "mirror in time": "mirror in time",
    "mirror in depth": "mirror in depth",
    invert: "invert",
    targetNode: "Node that takes the blocks",
    putBlocks: "Put into blocks",
    pickBlocks: "Pick blocks below.",
    notListed: "Run this node to list the model's blocks.",
    attentionsOf: "{heads} heads of {size}",
};

/** @typedef {keyof typeof ENGLISH} Key */
/** @typedef {{key: string, values: Record<string, unknown>, text: string}} Phrase values may be phrases; the text is English */

let language = {};

/** To be called before the first node is made. */
export async function learn() {
    const locale = app.extensionManager.setting.get("Comfy.Locale") ?? "en";
    const all = await (await api.fetchApi("/i18n")).json();
    language = all[locale]?.circulation ?? all[locale.split("-")[0]]?.circulation ?? {}; // zh-TW may be another pack's alone
}

/**
 * @param {Key} key
 * @param {Record<string, unknown>} values for the names in braces
 */
export function say(key, values = {}) {
    return filled(language[key] ?? ENGLISH[key], values);
}

/**
 * A line that the server has sent.
 * @param {{text: string, sentences?: Phrase[]}} line of older versions of the pack it has the English text alone
 */
export function lineOf({ text, sentences }) {
    return sentences ? joined(...sentences.map(spoken)) : text;
}

/** Sentences in a row; Chinese and Japanese leave no space between them. */
export function joined(...sentences) {
    return sentences.filter(Boolean).join(" ").replaceAll("。 ", "。");
}

/** A phrase of the server's in the language, or in English; what is none is left as it is. */
export function spoken(phrase) {
    if (!phrase?.key) return phrase;
    const { key, values, text } = phrase;
    const template = language.phrases?.[key] ?? "";
    const fits = [...template.matchAll(/\{(\w+)\}/g)].every(([, name]) => name in values); // a page may be older than its server
    return template && fits ? filled(template, Object.fromEntries(Object.entries(values).map(([name, value]) => [name, spoken(value)]))) : text;
}

function filled(template, values) {
    return template.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}
