// @ts-check
// The heat map of a chart: how unsettled each block of the model was, block by step. As an image, which is quick for however many cells.
//
// Data is a chart's (chart.js), whose `blocks` names all blocks of the model and whose points have {percent, unsettled: [of each block, or null]}.

import { html, mix } from "./theme.js";

const WIDTH = 512; // pixels, in which the cells are of different widths
const SHADES = 32;

/** Where each point begins and ends, as a share of all steps. */
export function alongSteps({ steps, points }) {
    return spans(points.map(({ step }) => (step - 0.5) / steps), 1 / steps);
}

/** Where each point begins and ends in the sampling, as the painter and start_percent count it. */
export function alongSampling({ steps, points }) {
    return spans(points.map(({ percent }) => percent), 1 / steps);
}

/** Each place goes half the way to its neighbours, and at the ends as far to the other side. */
function spans(places, alone) {
    const way = (one, other) => (one === undefined || other === undefined ? undefined : (other - one) / 2);
    return places.map((place, i) => {
        const [before, after] = [way(places[i - 1], place), way(place, places[i + 1])];
        return [place - (before ?? after ?? alone / 2), place + (after ?? before ?? alone / 2)].map((end) => Math.min(Math.max(end, 0), 1));
    });
}

/** The least and the largest value; null where nothing was measured. */
export function range({ points }) {
    let [least, most] = [Infinity, -Infinity];
    for (const value of points.flatMap(({ unsettled }) => unsettled)) {
        if (value !== null) [least, most] = [Math.min(least, value), Math.max(most, value)];
    }
    return least > most ? null : [least, most];
}

/**
 * As the address of a PNG with a row of pixels for each block. What was not measured stays transparent.
 * @param {number[][]} places of each point
 * @param {string[]} colours of the least and of the largest value
 */
export function heatMap(data, places, colours) {
    const canvas = html("canvas", { width: WIDTH, height: data.blocks.length });
    const context = canvas.getContext("2d");
    const shades = Array.from({ length: SHADES + 1 }, (_, i) => mix(colours[0], colours[1], i / SHADES));
    const [least, most] = range(data) ?? [0, 1];
    data.points.forEach(({ unsettled }, i) => {
        const [from, to] = places[i].map((share) => Math.round(share * WIDTH));
        unsettled.forEach((value, row) => {
            if (value === null) return;
            context.fillStyle = shades[Math.round(((value - least) / (most - least || 1)) * SHADES)];
            context.fillRect(from, row, to - from, 1);
        });
    });
    return canvas.toDataURL();
}
