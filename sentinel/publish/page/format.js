// Numbers as people read them, as sentinel/units.py writes them: three digits, the unit that fits.

const short = (number) => (number >= 100 ? number.toFixed(0) : String(Number(number.toPrecision(3))));

export function duration(seconds) {
  if (seconds < 0) return `-${duration(-seconds)}`;
  for (const [unit, scale] of [["ns", 1e-9], ["µs", 1e-6], ["ms", 1e-3], ["s", 1]]) {
    const text = short(seconds / scale);
    if (Number(text) < (scale < 1 ? 1000 : 120)) return `${text} ${unit}`;
  }
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// How long something has lasted, for a clock that ticks: whole seconds.
export function lasted(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return duration(whole);
}

export function size(bytes) {
  let count = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(count) < 1000) return `${short(count)} ${unit}`;
    count /= 1024;
  }
  return `${short(count)} TiB`;
}

export const percent = (ratio) => `${short(ratio * 100)} %`;

export function quantity(value, unit) {
  const write = { seconds: duration, bytes: size, ratio: percent }[unit];
  if (write) return write(value);
  return unit ? `${short(value)} ${unit}` : short(value);
}

export const clock = (unixSeconds) => new Date(unixSeconds * 1000).toLocaleTimeString([], { hour12: false });

export function moment(unixSeconds) {
  const then = new Date(unixSeconds * 1000);
  const today = then.toDateString() === new Date().toDateString();
  return today ? clock(unixSeconds) : `${then.toLocaleDateString()} ${clock(unixSeconds)}`;
}
