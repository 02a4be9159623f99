// What cases say of errors and of what comes in its own time.

import assert from 'node:assert/strict';
import { status as codes } from '@grpc/grpc-js';

export const text = (value) => Buffer.from(value ?? '').toString();

let serial = 0;
// newID is a key that no other case uses.
export const newID = (prefix = 'id') => `${prefix}-${process.pid}-${++serial}`;

// rejects checks that a promise fails, and how: with this gRPC code (by name), this text (in the message or in any ErrorDetail), this
// class (by name: EndorseError, CommitStatusError, ...). The error comes back.
export async function rejects(promise, { code, message, type } = {}) {
    let error;
    let value;
    try {
        value = await promise;
    } catch (err) {
        error = err;
    }
    assert.ok(error, `it succeeded, with ${printable(value)}`);
    const all = [error.message, ...(error.details?.map?.((d) => d.message) ?? [error.details])].filter(Boolean).join('\n');
    if (type) assert.equal(error.constructor.name, type, error.stack);
    if (code) assert.equal(codes[error.code], code, all);
    if (message) assert.match(all, message);
    return error;
}

// refused checks that an endorser's answer is no endorsement: its status and its message.
export function refused(response, status, message) {
    const answer = response.getResponse();
    assert.equal(answer.getStatus(), status, answer.getMessage() || `it succeeded, with ${printable(answer.getPayload_asU8())}`);
    if (message) assert.match(answer.getMessage(), message);
    assert.ok(!response.getEndorsement()?.getSignature_asU8().length, 'it is endorsed');
    return response;
}

// succeeded checks that an endorser's answer has status 200, and gives its payload.
export function succeeded(response) {
    const answer = response.getResponse();
    assert.equal(answer.getStatus(), 200, answer.getMessage());
    return answer.getPayload_asU8();
}

const printable = (value) => (value instanceof Uint8Array ? JSON.stringify(text(value)) : String(value)).slice(0, 200);

// next waits for the next element of an async iterable's iterator, but not forever.
export async function next(iterator, seconds = 10) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`nothing came within ${seconds} s`)), 1000 * seconds);
    });
    try {
        return (await Promise.race([iterator.next(), late])).value;
    } finally {
        clearTimeout(timer);
    }
}

// eventually waits until a function gives something true, and returns it; an error counts as not yet.
export async function eventually(condition, seconds = 10) {
    const end = Date.now() + 1000 * seconds;
    for (let last; ;) {
        try {
            const value = await condition();
            if (value) return value;
            last = undefined;
        } catch (err) {
            last = err;
        }
        if (Date.now() > end) throw last ?? new Error(`it did not come about within ${seconds} s: ${condition}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}
