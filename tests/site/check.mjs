// Opens every page of the book at desktop and phone width, light and dark, and asks what a reader would:
// does it scroll sideways, miss anything, ask other servers, complain, or shut somebody out (axe)?
// usage: node check.mjs <folder of the book> <folder for screenshots> [chromium]
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const [book, shots, executablePath = '/usr/bin/chromium'] = process.argv.slice(2);
const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const pages = fs.readdirSync(book, { recursive: true }).filter((f) => f.endsWith('.html') && !f.startsWith('_static')).sort();
const views = [1280, 390].flatMap((width) => ['light', 'dark'].map((colorScheme) => ({ width, colorScheme })));
fs.mkdirSync(shots, { recursive: true });

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
const problems = [];
for (const { width, colorScheme } of views) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
  for (const name of pages) {
    const where = `${name} at ${width} px, ${colorScheme}`;
    const tell = (what) => problems.push(`${where}: ${what}`);
    const page = await context.newPage();
    page.on('console', (m) => m.type() === 'error' && tell(`console: ${m.text()}`));
    page.on('pageerror', (e) => tell(`script: ${e}`));
    page.on('requestfailed', (r) => tell(`missing: ${r.url()}`));
    page.on('request', (r) => /^https?:/.test(r.url()) && tell(`asks another server: ${r.url()}`));
    await page.goto(pathToFileURL(path.resolve(book, name)).href);
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    if (wider > 1) tell(`scrolls sideways by ${wider} px`);
    const wordless = await page.$$eval('img', (all) => all.filter((i) => !i.alt.trim()).map((i) => i.src.slice(0, 60)));
    wordless.forEach((src) => tell(`picture without words: ${src}`));
    await page.evaluate(axe);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'], preload: false }));
    for (const v of found.violations.filter((v) => ['serious', 'critical'].includes(v.impact)))
      tell(`axe ${v.id} (${v.nodes.length}x): ${v.nodes[0].html.slice(0, 120)}`);
    const file = `${name.replaceAll('/', '-').replace('.html', '')}-${width}-${colorScheme}.png`;
    await page.screenshot({ path: path.join(shots, file) });
    await page.close();
  }
  await context.close();
}
await browser.close();
console.log(`${pages.length} pages in ${views.length} views: ${problems.length} problems`);
problems.forEach((p) => console.log(p));
process.exit(problems.length ? 1 : 0);
