// Shows how far the work is: on a terminal a bar that moves, elsewhere one line for each step that is done.

// The bar's width where there is room: besides it a line needs lineRest columns.
const maxBar = 20;
const minBar = 6;
const lineRest = 73;

export class Screen {
    #out;
    #done = 0;

    constructor(out) { this.#out = out; }

    say(text) { this.#out.write(`${text}\n`); }

    /** Says that one more item of the phase is done. */
    step() { this.#done++; }

    /** Shows a step of the job until the function it returns is called. */
    phase(name, total, tally) {
        if (!total) {
            return () => {};
        }
        this.#done = 0;
        const started = Date.now();
        const show = end => this.#out.write(this.#out.isTTY ? `\r${this.#line(name, total, started, tally)}\x1b[K${end}` : `${this.#line(name, total, started, tally)}\n`);
        const timer = this.#out.isTTY ? setInterval(() => show(''), 100) : undefined;
        return () => {
            clearInterval(timer);
            show('\n');
        };
    }

    #line(name, total, started, tally) {
        const count = n => n.toLocaleString('en');
        const width = (this.#out.columns ?? Infinity) - 1;
        const bar = Math.min(Math.max(width - lineRest, minBar), maxBar);
        const full = Math.floor(bar * this.#done / total);
        const rate = this.#done / Math.max((Date.now() - started) / 1000, 0.001);
        let line = `  ${name.padEnd(11)} ${'█'.repeat(full)}${'░'.repeat(bar - full)} ${`${count(this.#done)}/${count(total)}`.padStart(11)}  ${rate.toFixed(0).padStart(5)}/s`;
        if (name !== 'read back') {
            const [p50, p99] = tally.percentiles(1000);
            line += `  p50 ${p50.toFixed(0)} ms  p99 ${p99.toFixed(0)} ms  rejected ${tally.rejections}`;
        }
        return [...line].slice(0, width).join('');
    }
}
