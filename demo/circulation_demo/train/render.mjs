// Draws avatars: node render.mjs FIRST COUNT OUT < options.json. Writes OUT.rgb (16×16 pixels of three bytes each) and OUT.jsonl (what was drawn).
import { createAvatar } from '@dicebear/core';
import { pixelArt } from '@dicebear/collection';
import { Resvg } from '@resvg/resvg-js';
import fs from 'node:fs';

const [first, count, out] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const options = JSON.parse(fs.readFileSync(0, 'utf8'));
const pixels = Buffer.alloc(count * 16 * 16 * 3);
const drawn = [];
for (let i = 0; i < count; i++) {
  const avatar = createAvatar(pixelArt, { seed: String(first + i), ...options });
  const rgba = new Resvg(avatar.toString(), { fitTo: { mode: 'width', value: 16 } }).render().pixels;
  for (let p = 0; p < 256; p++) rgba.copy(pixels, (i * 256 + p) * 3, p * 4, p * 4 + 3);
  drawn.push(JSON.stringify(avatar.toJson().extra));
}
fs.writeFileSync(`${out}.rgb`, pixels);
fs.writeFileSync(`${out}.jsonl`, drawn.join('\n'));
