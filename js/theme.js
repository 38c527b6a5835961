// @ts-check
// What the chart and the painter draw with. Colours are taken from ComfyUI's palette, and moved away from the background until
// they can be read.

export const TEXT = 4.5; // contrast that WCAG 2.2 asks of text
export const LINE = 3.1; // and, with a little to spare, of lines and shapes: 3

const HUES_ON_DARK = ["#5aa9ff", "#ffb454", "#7fd962", "#ff7ab8", "#c792ea", "#4fd6be", "#e6e05c", "#ff8a80"];
const HUES_ON_LIGHT = ["#0b62c4", "#a85a00", "#2b7a1c", "#b8195f", "#7a34b3", "#00736a", "#6b6400", "#b3261e"];

const pixel = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });

/** Red, green and blue, 0 to 255, of any CSS colour, on white where it is not opaque. */
export function rgb(colour) {
    pixel.fillStyle = "#fff";
    pixel.fillRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

function luminance(colour) {
    const [r, g, b] = rgb(colour).map((c) => (c <= 10 ? c / 3294 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** From 1, the same, to 21, black on white. */
export function contrast(one, other) {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
}

export function mix(one, other, share) {
    const [a, b] = [rgb(one), rgb(other)];
    return `rgb(${a.map((value, i) => Math.round(value + (b[i] - value) * share)).join(", ")})`;
}

/** The colour, or as much of white or black with it as it takes to stand out from the background. */
export function readable(colour, background, ratio, towards = luminance(background) < 0.2 ? "#fff" : "#000") {
    let result = colour;
    for (let share = 0; contrast(result, background) < ratio && share <= 1; share += 0.05) result = mix(colour, towards, share);
    return result;
}

/** Black or white, whichever stands out more: 4.58 or better on any colour. */
export function opposite(background) {
    return contrast("#fff", background) > contrast("#000", background) ? "#fff" : "#000";
}

let last = { palette: null, colours: null };

/** The colours that a chart or a grid is drawn with, as ComfyUI's palette is now. */
export function theme() {
    const style = getComputedStyle(document.body);
    const palette = ["--comfy-input-bg", "--input-text", "--descrip-text", "--border-color"].map((name) => style.getPropertyValue(name).trim());
    if (palette.join() !== last.palette?.join()) last = { palette, colours: colours(...palette) };
    return last.colours;
}

function colours(back, front, description, border) {
    const background = `rgb(${rgb(back || "#222").join(", ")})`;
    const dark = luminance(background) < 0.2;
    const farthest = dark ? "#fff" : "#000";
    const hot = readable(dark ? "#ffb454" : "#a85a00", background, LINE);
    const behind = mix(background, hot, 0.5);
    const one = readable(dark ? "#2f6fb0" : "#6aa5e0", background, LINE);
    return {
        background,
        text: readable(front || "#ddd", background, TEXT),
        quiet: readable(description || "#999", background, TEXT),
        axis: readable(border || "#4e4e4e", background, LINE),
        grid: mix(background, farthest, 0.12),
        problem: readable(dark ? "#ff8a80" : "#b3261e", background, TEXT),
        lines: (dark ? HUES_ON_DARK : HUES_ON_LIGHT).map((hue) => readable(hue, background, LINE)),
        heat: [mix(background, farthest, 0.08), hot], // of the least and the largest value
        behind: [background, behind], // the same of what is drawn upon
        edge: readable(border || "#4e4e4e", behind, LINE, farthest), // of what is drawn upon that
        cells: [background, one, readable(one, one, LINE, farthest)], // of 0, 1 and 2
    };
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
}

export function html(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
}

/** Gives the element its colours, as CSS variables. */
export function colour(element, colours) {
    for (const name of ["background", "text", "quiet", "axis", "problem"]) element.style.setProperty(`--${name}`, colours[name]);
}

/** A function that does something before the next frame, once, however often it is called till then. */
export function onceAFrame(action) {
    let waiting = false;
    return () => {
        if (waiting) return;
        waiting = true;
        requestAnimationFrame(() => {
            waiting = false;
            action();
        });
    };
}

/** Keeps presses that begin in the element from the node below, which Nodes 2.0 would drag or select by the moves that follow. */
export function holdPresses(element) {
    let held = false;
    const release = () => setTimeout(() => (held = false)); // when the element has heard of it too
    element.addEventListener("pointerdown", (event) => {
        if (event.button === 1) return; // pans
        event.stopPropagation();
        held = true;
        for (const end of ["pointerup", "pointercancel"]) addEventListener(end, release, { capture: true, once: true });
    });
    for (const name of ["pointermove", "pointerup", "pointercancel"]) {
        element.addEventListener(name, (event) => held && event.stopPropagation());
    }
}
