// Opens one notebook in JupyterLab, runs all cells and says what a person would have seen, as JSON on the last line.
// usage: node drive.mjs '{"chromium": path, "lab": address, "token": token, "notebook": name, "shots": prefix, "minutes": 10}'

import { createHash } from 'node:crypto';
import { chromium } from 'playwright-core';

const told = JSON.parse(process.argv[2]);
const browser = await chromium.launch({
  executablePath: told.chromium,
  // WebGL in software: machines that run tests have no graphics card
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--use-angle=swiftshader', '--enable-unsafe-swiftshader',
         '--ignore-gpu-blocklist'],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 1400 } });
const seen = { complaints: [], fallbacks: [], popups: [], canvases: [], errors: [], unfinished: [] };
page.on('pageerror', error => seen.complaints.push(String(error).slice(0, 300)));
const digest = async what => createHash('sha256').update(await what.screenshot()).digest('hex');

// While cells run, a page keeps what its bars and pop-ups said.
function watch() {
  window.seenBars = {};
  window.seenPopups = new Set();
  setInterval(() => {
    for (const output of document.querySelectorAll('.jp-OutputArea-output pre')) {
      const bar = output.textContent.match(/^(.*?):\s+\d+%\|.*\| (\d+)\/(\d+) \[/);
      if (bar) ((window.seenBars[bar[1]] ??= { of: Number(bar[3]), done: [] }).done.at(-1) === Number(bar[2]))
        || window.seenBars[bar[1]].done.push(Number(bar[2]));
    }
    for (const popup of document.querySelectorAll('.jp-Dialog, .Toastify__toast'))
      window.seenPopups.add(popup.textContent.slice(0, 200));
  }, 100);
}

const prompts = () => [...document.querySelectorAll('.jp-CodeCell')]
  .filter(cell => cell.querySelector('.cm-content')?.textContent.trim())
  .map(cell => cell.querySelector('.jp-InputArea-prompt').textContent.trim());

try {
  await page.goto(`${told.lab}/doc/tree/${told.notebook}?token=${told.token}&reset`, { waitUntil: 'domcontentloaded' });
  await page.waitForSelector('.jp-NotebookPanel .jp-CodeCell', { timeout: 120_000 });
  await page.waitForFunction(() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle',
    null, { timeout: 120_000 });
  await page.evaluate(watch);
  const began = Date.now();
  await page.locator('.jp-NotebookPanel .jp-Cell').first().click();
  await page.getByRole('menuitem', { name: 'Run', exact: true }).first().click();
  await page.locator('[data-command="runmenu:run-all"]').click();
  await page.waitForTimeout(2000);

  // Run All ends with the last cell, or with the first one that errs.
  for (let quiet = 0; quiet < 3 && Date.now() - began < 60_000 * told.minutes;) {
    await page.waitForTimeout(500);
    quiet = (await page.evaluate(prompts)).some(prompt => prompt.includes('*')) ? 0 : quiet + 1;
  }
  seen.seconds = (Date.now() - began) / 1000;
  seen.unfinished = (await page.evaluate(prompts)).filter(prompt => !/\[\d+\]/.test(prompt));
  seen.bars = await page.evaluate(() => window.seenBars);
  seen.errors = await page.locator('[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]')
    .allInnerTexts();

  for (const canvas of await page.locator('.jp-OutputArea-output canvas').all()) {
    await canvas.scrollIntoViewIfNeeded();
    await page.waitForTimeout(3000);
    const file = `${told.shots}-canvas-${seen.canvases.length}.png`;
    await canvas.screenshot({ path: file });
    seen.canvases.push(file);
  }

  const slider = page.locator('.jp-OutputArea-output .widget-hslider').filter({ hasText: 'frame' }).first();
  if (await slider.count()) {
    await slider.scrollIntoViewIfNeeded();
    const parts = { atoms: page.locator('.jp-OutputArea-output canvas').first(),
                    marks: page.locator('.jp-OutputArea-output img.widget-image').first() };
    const before = { frame: await slider.locator('.widget-readout').innerText() };
    for (const [name, part] of Object.entries(parts)) before[name] = await digest(part);
    await slider.locator('.noUi-handle').focus();
    for (let n = 0; n < 5; n++) await page.keyboard.press('ArrowRight');
    await page.waitForTimeout(3000);
    seen.slider = { from: Number(before.frame), to: Number(await slider.locator('.widget-readout').innerText()), moved: [] };
    for (const [name, part] of Object.entries(parts)) if (await digest(part) !== before[name]) seen.slider.moved.push(name);
  }

  const text = await page.locator('.jp-NotebookPanel').innerText();
  for (const fallback of ['needs a running notebook', 'NGLWidget(', 'Box(children', 'Error displaying widget', 'Loading widget',
                          'Error creating widget', 'Failed to load model'])
    if (text.includes(fallback)) seen.fallbacks.push(fallback);
  seen.popups = await page.evaluate(() => [...window.seenPopups]);

  const notebook = page.locator('.jp-WindowedPanel-outer').first();
  const { height, step } = await notebook.evaluate(it => ({ height: it.scrollHeight, step: it.clientHeight - 60 }));
  for (let top = 0, n = 1; top < height; top += step, n++) {
    await notebook.evaluate((it, to) => it.scrollTo(0, to), top);
    await page.waitForTimeout(300);
    await page.screenshot({ path: `${told.shots}-page-${String(n).padStart(2, '0')}.png` });
  }
} catch (error) {
  seen.complaints.push(String(error).slice(0, 800));
  await page.screenshot({ path: `${told.shots}-failed.png` }).catch(() => {});
}
console.log(JSON.stringify(seen));
await browser.close();
