/** What a session remembers: JSON. */
export type Data = Record<string, unknown>;

/** How data has changed: a merge patch, or, where that can't tell it, a function to apply. */
export type Change = { patch: Data } | { apply: (current: Data) => Data };

/**
 * The difference between two states, as a merge patch (RFC 7396). A merge patch can't set
 * anything to null, which means "remove" there; such a change is a function instead.
 */
export function changeBetween(before: Data, after: Data): Change | undefined {
  const patch = diff(before, after);
  if (Object.keys(patch).length === 0) return undefined;
  const faithful = isEqual(merge(before, patch), after);
  return faithful ? { patch } : { apply: (current) => applyKeys(before, after, current) };
}

/** Other people's keys stay as they are; ours are set or removed, at any depth. */
function applyKeys(before: Data, after: Data, current: Data): Data {
  const merged = { ...current };
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const [old, wanted, there] = [before[key], after[key], current[key]];
    if (key in before && key in after && isEqual(old, wanted)) continue;
    if (!(key in after)) delete merged[key];
    else if (isObject(old) && isObject(wanted) && isObject(there)) merged[key] = applyKeys(old, wanted, there);
    else merged[key] = wanted;
  }
  return merged;
}

function diff(before: Data, after: Data): Data {
  const patch: Data = {};
  for (const key of Object.keys(before)) {
    if (!(key in after)) patch[key] = null;
  }
  for (const [key, value] of Object.entries(after)) {
    const old = before[key];
    if (key in before && isEqual(old, value)) continue;
    patch[key] = isObject(old) && isObject(value) ? diff(old, value) : value;
  }
  return patch;
}

/** RFC 7396 section 2. */
export function merge(target: Data, patch: Data): Data {
  const merged: Data = { ...target };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else if (isObject(value)) {
      const old = merged[key];
      merged[key] = merge(isObject(old) ? old : {}, value);
    } else merged[key] = value;
  }
  return merged;
}

function isObject(value: unknown): value is Data {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Equality of JSON; the order of an object's keys means nothing. */
export function isEqual(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((value, at) => isEqual(value, b[at]));
  }
  if (!isObject(a) || !isObject(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => key in b && isEqual(a[key], b[key]));
}
