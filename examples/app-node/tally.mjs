// Counts what became of the transactions.

export class Tally {
    committed = []; // transaction ids
    latencies = [];
    rejected = {};
    lost = 0; // acknowledged, but not found when read back
    different = 0; // found with other content
    events = 0; // committed transactions that were announced, once
    eventsAgain = 0;
    firstCommit;

    start() { this.started = Date.now(); }
    end() { this.ended = Date.now(); }

    commit(transactionId, milliseconds) {
        this.firstCommit ??= Date.now();
        this.committed.push(transactionId);
        this.latencies.push(milliseconds);
    }

    reject(why) { this.rejected[why] = (this.rejected[why] ?? 0) + 1; }

    get rejections() { return Object.values(this.rejected).reduce((sum, n) => sum + n, 0); }

    countEvents(seen) {
        this.events = this.committed.filter(id => seen.get(id) === 1).length;
        this.eventsAgain = this.committed.filter(id => seen.get(id) > 1).length;
    }

    /** p50 and p99 of the last transactions, or of all. */
    percentiles(last = this.latencies.length) {
        const sorted = this.latencies.slice(-last).sort((a, b) => a - b);
        const at = p => Number((sorted[Math.floor((sorted.length - 1) * p / 100)] ?? 0).toFixed(3));
        return [at(50), at(99)];
    }

    summary() {
        const [p50, p99] = this.percentiles();
        const seconds = (this.ended - this.started) / 1000;
        return {
            committed: this.committed.length,
            rejected: this.rejected,
            lost: this.lost,
            different: this.different,
            events: this.events,
            events_again: this.eventsAgain,
            first_commit_s: (this.firstCommit - this.started) / 1000, // since the application began
            first_commit_at: new Date(this.firstCommit).toISOString(),
            seconds,
            tx_per_s: this.committed.length / seconds,
            p50_ms: p50,
            p99_ms: p99,
        };
    }

    print(screen) {
        const s = this.summary();
        const why = Object.entries(s.rejected).sort(([a, n], [b, m]) => m - n || a.localeCompare(b)).map(([name, n]) => `${name} ${n}`);
        const count = n => n.toLocaleString('en');
        screen.say(`  committed   ${count(s.committed)} transactions, ${s.tx_per_s.toFixed(0)}/s, p50 ${s.p50_ms.toFixed(0)} ms, p99 ${s.p99_ms.toFixed(0)} ms`);
        screen.say(`  rejected    ${count(this.rejections)}: ${why.join(', ') || 'none'}`);
        screen.say(`  read back   ${s.lost} lost, ${s.different} different`);
        screen.say(`  events      ${count(s.events)} announced once, ${s.events_again} more than once, ${s.committed - s.events - s.events_again} missing\n`);
    }

    /** What the ledger did not keep of its promises; undefined if it kept all. */
    verdict() {
        if (this.lost || this.different) {
            return `of the shipments that were acknowledged ${this.lost} are lost and ${this.different} differ from what was sent`;
        }
        if (this.events !== this.committed.length) {
            return `of ${this.committed.length} committed transactions ${this.events} were announced once, ${this.eventsAgain} more than once`;
        }
        return undefined;
    }
}
