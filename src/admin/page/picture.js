// What happened, and a picture of it. No network and no clock in here: events and peers in the form of /v1/events and /v1/peers go
// in, with their times, and canvases are drawn. The status page feeds it live; a report feeds it from a block of JSON.
'use strict';

const Picture = (() => {
  // What is kept at most. A lapse with a thousand peers makes two thousand events; a page must stay open for weeks.
  const BOUNDS = { lanes: 5000, spans: 256, steps: 4096, modes: 512, lapses: 256, events: 400 };

  // What a lane can be, from the strongest to the weakest. `mark` says how it is drawn, so that colour is never all there is.
  const STATES = {
    channel: { word: 'up, with a channel', short: 'channel link', mark: 'double' },
    gossip: { word: 'up, gossip only', short: 'gossip link', mark: 'solid' },
    persona: { word: 'up under a persona', short: 'persona link', mark: 'hatched' },
    dialing: { word: 'being dialled', short: 'dialling', mark: 'dots' },
    awaited: { word: 'next to be dialled', short: 'awaited', mark: 'dots' },
    held: { word: 'held until the signer is back', short: 'held', mark: 'hollow' },
    backoff: { word: 'waiting after a failure', short: 'backing off', mark: 'low' },
    down: { word: 'down', short: 'down', mark: 'thin' },
    not_dialable: { word: 'not to be dialled: it has no address for that', short: 'not dialable', mark: 'thin' },
    unknown: { word: 'unknown', short: 'not seen', mark: 'none' },
  };
  const UP = ['channel', 'gossip', 'persona'];

  const REASONS = {
    requested: 'it was requested', stream_closed: 'its connection closed', liveness_lost: 'no sign of life', taken_over: 'another signer took over',
    planned: 'it was planned', dropped: 'its session was dropped', signer_error: 'the signer failed', panicked: 'its task broke', shutdown: 'the daemon is stopping',
  };
  const plain = (label) => String(label ?? '').replaceAll('_', ' ');
  const reason = (label) => REASONS[label] ?? plain(label);

  function trim(list, most) {
    if (list.length > most) list.splice(0, list.length - most);
  }

  // --- the model ------------------------------------------------------------------------------------------------------

  class Model {
    constructor() {
      this.lanes = new Map();
      this.modes = [];
      this.lapses = [];
      this.attaches = [];
      this.steps = [];
      this.events = [];
      this.counts = Object.fromEntries(Object.keys(STATES).map((state) => [state, 0]));
      this.mode = null;
      this.from = Infinity;
      // The last moment of which anything is known.
      this.until = -Infinity;
      // Counts up with every change, so that nothing is drawn that is drawn already.
      this.version = 0;
      this.shape = 0;
      this.left = 0;
      this.bulk = false;
    }

    // One event of /v1/events.
    event(event) {
      const at = Number(event.at);
      if (!Number.isFinite(at)) return;
      this.seen(at);
      this.version += 1;
      switch (event.event) {
        case 'mode_changed': this.setMode(at, event.to, event.from); break;
        case 'signer_lapsed': this.lapsed(at, event); break;
        case 'signer_attached':
          this.attaches.push({ at, epoch: event.epoch, away: event.away_ms ?? null });
          trim(this.attaches, BOUNDS.lapses);
          break;
        case 'dialing': this.lane(event, at, (lane) => { if (!UP.includes(lane.state)) this.turn(lane, at, 'dialing'); }); break;
        case 'dial_failed': this.lane(event, at, (lane) => {
          if (!UP.includes(lane.state)) this.turn(lane, at, event.retry_in_ms === null ? 'held' : 'backoff');
        }); break;
        case 'link_up': this.lane(event, at, (lane) => {
          lane.link = event.link;
          lane.identity = event.identity;
          this.tag(lane, event.tag);
          this.turn(lane, at, this.upState(lane));
        }); break;
        case 'link_down': this.lane(event, at, (lane) => this.linkDown(lane, at, event)); break;
        case 'tagged': this.lane(event, at, (lane) => {
          this.tag(lane, event.tag);
          if (UP.includes(lane.state)) this.turn(lane, at, this.upState(lane));
        }); break;
        default: break;
      }
      this.note(event, at);
    }

    linkDown(lane, at, event) {
      // A successor's link_up may come first.
      if (lane.link !== null && lane.link !== event.link) return;
      lane.link = null;
      lane.identity = null;
      lane.fell = { at, reason: event.reason };
      lane.falls += 1;
      this.tag(lane, event.tag);
      const waits = event.reason === 'lapse' || (lane.tag === 'channel-bearing' && (this.mode === 'safe' || this.mode === 'waiting'));
      this.turn(lane, at, waits ? 'held' : 'down');
    }

    setMode(at, mode, before) {
      if (before && this.modes.length === 0 && this.from < at) this.modes.push({ at: this.from, mode: before });
      this.mode = mode;
      this.modes.push({ at, mode });
      trim(this.modes, BOUNDS.modes);
    }

    lapsed(at, event) {
      const began = at - (Number(event.teardown_ms) || 0) / 1000;
      this.lapses.push({ ...event, at: began });
      trim(this.lapses, BOUNDS.lapses);
    }

    // All of /v1/peers. `asked`: when it was asked for; what has changed since then is newer than the answer.
    peers(list, at, asked = at) {
      this.seen(at);
      const there = new Set();
      this.bulk = true;
      for (const peer of list) {
        there.add(peer.node_id);
        this.lane(peer, at, (lane) => {
          lane.addr = peer.addr ?? lane.addr;
          lane.name = peer.name ?? lane.name;
          lane.weight = peer.weight ?? 0;
          lane.gone = false;
          if (lane.changed > asked) return;
          this.tag(lane, peer.tag);
          lane.identity = peer.identity ?? null;
          const state = this.stateOf(peer, lane);
          // A link that was up before this page was opened is drawn from when it came up.
          const since = Number(peer.since);
          const first = lane.spans.length === 0 && UP.includes(state) && since > 0 ? Math.min(since, at) : at;
          this.turn(lane, first, state);
        });
      }
      for (const lane of this.lanes.values()) {
        if (there.has(lane.id) || lane.changed > asked || UP.includes(lane.state)) continue;
        if (!lane.gone) this.version += 1;
        lane.gone = true;
        this.turn(lane, at, 'down');
      }
      this.bulk = false;
      this.step(at);
      this.forget(at);
    }

    stateOf(peer, lane) {
      if (peer.state === 'up') return this.upState(lane);
      if (peer.state === 'idle') return 'down';
      return STATES[peer.state] ? peer.state : 'unknown';
    }

    // /v1/info.
    info(info, at) {
      this.seen(at);
      if (info.mode && info.mode !== this.mode) {
        this.setMode(Math.min(Number(info.since) || at, at), info.mode, null);
        this.modes.sort((a, b) => a.at - b.at);
        this.version += 1;
      }
      const last = info.last_lapse;
      if (last && !this.lapses.some((lapse) => Math.abs(lapse.at + lapse.teardown_ms / 1000 - last.at) < 0.5)) {
        this.lapsed(last.at, last);
        this.lapses.sort((a, b) => a.at - b.at);
        this.version += 1;
      }
    }

    // Nothing is known from `at` on, until the next snapshot.
    gap(at) {
      for (const lane of this.lanes.values()) {
        lane.link = null;
        this.turn(lane, at, 'unknown');
      }
    }

    seen(at) {
      this.from = Math.min(this.from, at);
      this.until = Math.max(this.until, at);
    }

    lane(source, at, change) {
      const id = source.node_id;
      if (typeof id !== 'string') return;
      let lane = this.lanes.get(id);
      if (!lane) {
        if (this.lanes.size >= BOUNDS.lanes && !this.makeRoom()) {
          this.left += 1;
          return;
        }
        lane = {
          id, tag: 'gossip-only', addr: null, name: null, weight: 0, identity: null, link: null, state: 'unknown', spans: [],
          changed: -Infinity, fell: null, falls: 0, gone: false,
        };
        this.lanes.set(id, lane);
        this.counts.unknown += 1;
        this.tag(lane, source.tag);
        this.shape += 1;
      }
      if (source.addr) lane.addr = source.addr;
      change(lane);
    }

    tag(lane, tag) {
      if (!tag || lane.tag === tag) return;
      lane.tag = tag;
      this.shape += 1;
    }

    upState(lane) {
      if (lane.identity === 'persona') return 'persona';
      return lane.tag === 'channel-bearing' ? 'channel' : 'gossip';
    }

    turn(lane, at, state) {
      lane.changed = Math.max(lane.changed, at);
      if (lane.state === state && lane.spans.length > 0) return;
      this.version += 1;
      this.counts[lane.state] -= 1;
      this.counts[state] += 1;
      lane.state = state;
      const last = lane.spans[lane.spans.length - 1];
      // Two changes in the same instant: the later one is what was seen.
      if (last && at <= last.at) last.state = state;
      else lane.spans.push({ at, state });
      trim(lane.spans, BOUNDS.spans);
      this.step(at);
    }

    step(at) {
      if (this.bulk) return;
      const { channel, gossip, persona } = this.counts;
      const last = this.steps[this.steps.length - 1];
      if (last && last.channel === channel && last.gossip === gossip && last.persona === persona) return;
      // A thousand links that fall together are one step.
      if (last && at - last.at < 0.05) Object.assign(last, { channel, gossip, persona });
      else this.steps.push({ at, channel, gossip, persona });
      trim(this.steps, BOUNDS.steps);
    }

    // Strangers come and go: lanes that the daemon no longer knows end after an hour.
    forget(at) {
      for (const lane of this.lanes.values()) if (lane.gone && at - lane.changed >= 3600) this.end(lane);
    }

    // They end earlier where a peer that it knows would find no place for them.
    makeRoom() {
      let oldest = null;
      for (const lane of this.lanes.values()) if (lane.gone && !(oldest?.changed <= lane.changed)) oldest = lane;
      if (oldest) this.end(oldest);
      return oldest !== null;
    }

    end(lane) {
      this.counts[lane.state] -= 1;
      this.lanes.delete(lane.id);
      this.shape += 1;
    }

    note(event, at) {
      const told = tell(event);
      if (!told) return;
      const last = this.events[this.events.length - 1];
      if (last && last.group === told.group && told.group && at - last.at < 5) {
        last.times += 1;
        last.at = at;
        return;
      }
      this.events.push({ ...told, at, times: 1, event });
      // What matters outlives what does not.
      if (this.events.length > BOUNDS.events) {
        const minor = this.events.findIndex((told) => told.level === 'minor');
        this.events.splice(minor < 0 ? 0 : minor, 1);
      }
    }

    // Lanes in the order in which they are shown: those with channels first, then by weight, then by id.
    ordered(only, find) {
      const wanted = (lane) => {
        if (find && !lane.id.includes(find) && !(lane.name ?? '').toLowerCase().includes(find) && !(lane.addr ?? '').includes(find)) return false;
        if (only === 'channel') return lane.tag === 'channel-bearing';
        if (only === 'gossip') return lane.tag !== 'channel-bearing';
        if (only === 'down') return !UP.includes(lane.state);
        return true;
      };
      const rank = (lane) => (lane.tag === 'channel-bearing' ? 0 : 1);
      return [...this.lanes.values()].filter(wanted)
        .sort((a, b) => rank(a) - rank(b) || b.weight - a.weight || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
    }

    // When no signer was there, as pairs of times; the last may be open.
    away(until) {
      const pairs = [];
      let since = null;
      for (const { at, mode } of this.modes) {
        const gone = mode === 'safe' || mode === 'waiting';
        if (gone && since === null) since = at;
        if (!gone && since !== null) {
          pairs.push([since, at]);
          since = null;
        }
      }
      if (since !== null) pairs.push([since, until]);
      return pairs;
    }
  }

  // --- words ----------------------------------------------------------------------------------------------------------

  const shortId = (id) => (typeof id === 'string' ? `${id.slice(0, 8)}…${id.slice(-4)}` : 'a peer');
  const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;

  // When an HTLC expires, of the blocks that are left: below 0 it has.
  const expiry = (left) => (left > 0 ? `expires in ${count(left, 'block', 'blocks')}` : left < 0 ? `expired ${count(-left, 'block', 'blocks')} ago` : 'expires now');

  // What is said of an event: how much it matters, a sign and a sentence. `group`: like ones in a row are told once.
  function tell(event) {
    const peer = shortId(event.node_id);
    const minor = (text, group) => ({ level: 'minor', sign: '·', text, group });
    switch (event.event) {
      case 'mode_changed':
        return { level: event.to === 'live' ? 'good' : 'alarm', sign: event.to === 'live' ? '▲' : '▼', text: `Mode: ${event.from} → ${event.to}` };
      case 'signer_lapsed':
        return { level: 'alarm', sign: '▼', text: `The signer lapsed: ${reason(event.reason)}. ${count(event.dropped, 'link', 'links')} dropped, ${event.retained} retained; fence ${micros(event.fence_us)}, teardown ${millis(event.teardown_ms)}` };
      case 'signer_attached':
        return { level: 'good', sign: '▲', text: `The signer attached: epoch ${event.epoch}${event.away_ms == null ? '' : `, after ${event.away_ms < 1000 ? millis(event.away_ms) : span(event.away_ms / 1000)}`}` };
      case 'relit':
        return { level: 'good', sign: '▲', text: event.up === 0 && event.failed === 0 ? 'Relit: there was no channel peer to bring back'
          : `Relit: ${count(event.up, 'channel peer', 'channel peers')} back${event.took_ms == null ? '' : ` in ${millis(event.took_ms)}`}${event.failed ? `, ${event.failed} not` : ''}` };
      case 'held_down': return { level: 'alarm', sign: '!', text: `The signer comes and goes: channel peers wait ${millis(event.wait_ms)}` };
      case 'gossip_floor': return event.missing > 0
        ? { level: 'alarm', sign: '!', text: `Gossip floor: ${event.missing} of ${event.wanted} links missing` }
        : { level: 'good', sign: '✓', text: 'Gossip floor kept' };
      case 'signer_refused': return { level: 'alarm', sign: '!', text: `A signer was refused, from ${event.addr}: ${event.detail ?? plain(event.reason)}`, group: `refused ${event.reason}` };
      case 'signer_taken_over': return { level: 'alarm', sign: '!', text: `Another signer took over: ${event.from} → ${event.to}` };
      case 'signer_stalled': return event.stalled ? { level: 'alarm', sign: '!', text: 'The signer is stalled: it is connected and does not answer' } : { level: 'good', sign: '✓', text: 'The signer answers again' };
      case 'ecdh_throttled': return { level: 'note', sign: '!', text: `More is asked of the signer than it answers (${plain(event.scope)})`, group: 'throttled' };
      case 'mistag_suspected': return { level: 'alarm', sign: '!', text: `${peer} is tagged gossip-only and claims a channel`, group: `mistag ${event.node_id}` };
      case 'peer_complained': return { level: 'note', sign: '!', text: `${peer} sent ${event.kind === 'error' ? 'an error' : 'a warning'}: ${event.text}` };
      case 'banned': return { level: 'note', sign: '!', text: `Banned for ${span(event.lasts_s)}: ${event.who} (${plain(event.offence)})` };
      case 'tagged': return { level: 'note', sign: '·', text: `${peer} is now ${event.tag}`, group: `tagged ${event.tag}` };
      case 'leased': return minor(`${peer}: its link now depends on the signer`, 'leased');
      case 'htlc_deadline': return { level: 'alarm', sign: '!', text: `An HTLC with ${peer} ${expiry(event.blocks_left)}, and no signer is there${event.peers > 1 ? ` (${event.peers} peers have HTLCs within ${event.within} blocks)` : ''}` };
      case 'absence_planned': return { level: 'note', sign: '·', text: `An absence of the signer is planned: ${count(event.htlcs, 'HTLC', 'HTLCs')} with ${count(event.peers, 'peer', 'peers')} pending` };
      case 'absence_over': return { level: 'note', sign: '·', text: event.outcome === 'lapsed' ? 'The planned absence has begun' : `The planned absence is off: ${plain(event.outcome)}` };
      case 'book_failed': return { level: 'alarm', sign: '!', text: `The peer book failed: ${event.detail}` };
      case 'inbox_stalled': return event.stalled ? { level: 'alarm', sign: '!', text: 'The node does not receive: links have stopped reading' } : { level: 'good', sign: '✓', text: 'The node receives again' };
      case 'listener_behind': return { level: 'note', sign: '!', text: event.missed > 0 ? `A reader of the event stream has missed ${count(event.missed, 'event', 'events')}` : 'A reader of the event stream takes nothing', group: 'behind' };
      case 'drained': return { level: 'note', sign: '▼', text: `Drained: ${event.closed} links closed${event.overran ? `, ${event.overran} overran` : ''}` };
      case 'listening': return { level: 'note', sign: '·', text: `Listening for peers at ${event.addr}` };
      case 'gateway_listening': return { level: 'note', sign: '·', text: `Listening for the signer at ${event.addr}` };
      case 'missed': return { level: 'note', sign: '!', text: `${event.missed} events were missed`, group: 'missed' };
      case 'link_up': return minor(`${peer} is up (${event.tag}${event.identity === 'persona' ? ', under a persona' : ''}, ${event.direction})`, `up ${event.tag} ${event.identity}`);
      case 'link_down': return minor(`${peer} is down: ${plain(event.reason)}`, `down ${event.reason}`);
      case 'dial_failed': return minor(`${peer} could not be dialled: ${event.detail ?? plain(event.failure)}`, `failed ${event.failure}`);
      default: return null;
    }
  }

  function micros(us) {
    if (us == null) return '–';
    return us < 1000 ? `${round(us)} µs` : millis(us / 1000);
  }
  function millis(ms) {
    if (ms == null) return '–';
    return ms < 1000 ? `${round(ms)} ms` : `${round(ms / 1000)} s`;
  }
  const round = (x) => (x >= 100 ? Math.round(x) : Number(x.toPrecision(2))).toString();

  // A time span in words, its two largest units.
  function span(seconds) {
    const s = Math.max(0, Math.round(seconds));
    const two = (a, au, b, bu) => (b ? `${a} ${au} ${b} ${bu}` : `${a} ${au}`);
    if (s < 60) return `${s} s`;
    if (s < 3600) return two(Math.floor(s / 60), 'min', s % 60, 's');
    if (s < 86400) return two(Math.floor(s / 3600), 'h', Math.floor((s % 3600) / 60), 'min');
    return two(Math.floor(s / 86400), 'd', Math.floor((s % 86400) / 3600), 'h');
  }

  const clockOptions = { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' };
  const clockFormat = new Intl.DateTimeFormat(undefined, clockOptions);
  const dayFormat = new Intl.DateTimeFormat(undefined, { ...clockOptions, month: 'short', day: 'numeric' });
  const clock = (at) => clockFormat.format(at * 1000);
  // With the day, where it is not the same day as `now`.
  const when = (at, now) => (Math.abs(now - at) < 43200 ? clock(at) : dayFormat.format(at * 1000));

  // A lane in a sentence.
  function sentence(lane, now) {
    const spanNow = lane.spans[lane.spans.length - 1];
    const parts = [`${lane.name ? `${lane.name}, ` : ''}${lane.id}`, lane.tag, STATES[lane.state].word + (spanNow && lane.state !== 'unknown' ? ` since ${when(spanNow.at, now)} (${span(now - spanNow.at)})` : '')];
    if (lane.addr) parts.push(`at ${lane.addr}`);
    if (lane.fell) parts.push(`last went down at ${when(lane.fell.at, now)}: ${plain(lane.fell.reason)}`);
    if (lane.gone) parts.push('no longer known to the daemon');
    return parts.join(' · ');
  }

  // --- drawing --------------------------------------------------------------------------------------------------------

  const ROW = 20;
  const AXIS = 22;

  function palette(element) {
    const style = getComputedStyle(element);
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    const names = ['text', 'muted', 'line', 'surface', 'raised', 'accent', 'live', 'safe', 'waiting', 'draining', 'alarm', ...Object.keys(STATES).map((state) => `lane-${state}`)];
    return Object.fromEntries(names.map((name) => [name, get(name)]));
  }

  // Makes a canvas as sharp as the screen, and empty.
  function fit(canvas, width, height) {
    const ratio = globalThis.devicePixelRatio || 1;
    const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    if (canvas.width !== w || canvas.height !== h) {
      canvas.width = w;
      canvas.height = h;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const context = canvas.getContext('2d');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  function hatch(context, x, y, width, height, colour, gap = 5) {
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.beginPath();
    for (let at = x - height - (x % gap); at < x + width; at += gap) {
      context.moveTo(at, y + height);
      context.lineTo(at + height, y);
    }
    context.stroke();
    context.restore();
  }

  // One stretch of a lane.
  function mark(context, state, x, y, width, colours) {
    const colour = colours[`lane-${state}`];
    const wide = Math.max(width, 1);
    context.fillStyle = colour;
    switch (STATES[state].mark) {
      case 'double':
        context.fillRect(x, y + 3, wide, 6);
        context.fillRect(x, y + 11, wide, 6);
        context.fillRect(x, y + 8, wide, 1);
        break;
      case 'solid': context.fillRect(x, y + 4, wide, 12); break;
      case 'hatched':
        hatch(context, x, y + 4, wide, 12, colour);
        context.fillRect(x, y + 4, wide, 1);
        context.fillRect(x, y + 15, wide, 1);
        break;
      case 'dots': for (let at = x; at < x + wide; at += 6) context.fillRect(at, y + 8, Math.min(3, x + wide - at), 4); break;
      case 'hollow':
        context.fillRect(x, y + 6, wide, 1);
        context.fillRect(x, y + 13, wide, 1);
        if (wide > 2) {
          context.fillRect(x, y + 6, 1, 8);
          context.fillRect(x + wide - 1, y + 6, 1, 8);
        }
        break;
      case 'low': context.fillRect(x, y + 12, wide, 4); break;
      case 'thin': context.fillRect(x, y + 10, wide, 1); break;
      default: break;
    }
  }

  // Round times for an axis: at most one in 70 pixels.
  function ticks(from, until, width) {
    const steps = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 604800];
    const step = steps.find((step) => (until - from) / step <= width / 78) ?? 604800;
    const offset = new Date(until * 1000).getTimezoneOffset() * 60;
    const found = [];
    for (let at = Math.ceil((from - offset) / step) * step + offset; at <= until; at += step) found.push(at);
    return found;
  }

  class View {
    // `parts`: the overview's canvas, the scrolling box, what gives it its height, and the lanes' canvas in it.
    constructor(model, parts) {
      this.model = model;
      this.parts = parts;
      this.only = 'all';
      this.find = '';
      this.seconds = 600;
      // The least that is shown, in seconds: never so close that a second is an inch wide.
      this.least = 20;
      this.selected = null;
      this.order = [];
      this.ordered = null;
      this.now = null;
      this.contact = null;
    }

    // Lanes in order, made anew only if what decides it has changed.
    lanes() {
      const key = `${this.model.shape} ${this.only} ${this.find} ${this.only === 'down' ? this.model.version : ''}`;
      if (key !== this.ordered) {
        this.ordered = key;
        this.order = this.model.ordered(this.only, this.find);
      }
      return this.order;
    }

    // `now`: the right edge. `contact`: until when anything is known, if that is earlier.
    draw(now, contact = now) {
      if (!Number.isFinite(now)) return;
      this.now = now;
      this.contact = Math.min(contact, now);
      // Not from before anything is known.
      const first = Math.min(this.model.from, now - this.least);
      this.from = this.seconds > 0 ? Math.max(first, now - this.seconds) : first;
      this.colours = palette(this.parts.box);
      const width = this.parts.box.clientWidth;
      if (width <= 0) return;
      this.gutter = width < 560 ? 84 : 150;
      this.width = width;
      this.drawOverview();
      this.drawLanes();
    }

    x(at) {
      return this.gutter + ((at - this.from) / (this.now - this.from)) * (this.width - this.gutter);
    }

    at(x) {
      return this.from + ((x - this.gutter) / (this.width - this.gutter)) * (this.now - this.from);
    }

    // Time without a signer, lapses and returns, down the whole height.
    drawTimes(context, height, labelled) {
      const { colours } = this;
      for (const [since, until] of this.model.away(this.contact)) {
        const [x, end] = [Math.max(this.x(since), this.gutter), this.x(Math.min(until, this.contact))];
        if (end <= this.gutter) continue;
        context.globalAlpha = 0.13;
        context.fillStyle = colours.safe;
        context.fillRect(x, labelled ? AXIS - 5 : 0, Math.max(end - x, 1), height);
        context.globalAlpha = 1;
      }
      for (const at of ticks(this.from, this.now, this.width - this.gutter)) {
        const x = Math.round(this.x(at)) + 0.5;
        if (x < this.gutter) continue;
        context.fillStyle = colours.line;
        context.fillRect(x - 0.5, labelled ? AXIS - 5 : 0, 1, height);
      }
      if (this.contact < this.now - 1) {
        const x = Math.max(this.x(this.contact), this.gutter);
        hatch(context, x, 0, this.width - x, height, colours.line, 8);
      }
      const top = labelled ? AXIS - 5 : 0;
      for (const { at } of this.model.attaches) this.drawLine(context, at, top, height, colours.live, []);
      for (const { at } of this.model.lapses) this.drawLine(context, at, top, height, colours.alarm, [5, 3]);
    }

    drawLine(context, at, top, height, colour, dash) {
      const x = Math.round(this.x(at)) + 0.5;
      if (x < this.gutter || x > this.width) return;
      context.save();
      context.strokeStyle = colour;
      context.lineWidth = 1.5;
      context.setLineDash(dash);
      context.beginPath();
      context.moveTo(x, top);
      context.lineTo(x, height);
      context.stroke();
      context.restore();
    }

    // The axis, the mode, and how many links of which kind there were.
    drawOverview() {
      const [{ colours, gutter, width }, ribbon, graph] = [this, 18, 64];
      const top = AXIS + ribbon + 6;
      const height = top + graph + 20;
      const context = fit(this.parts.overview, width, height);
      this.drawTimes(context, height, true);
      context.font = '12px system-ui, sans-serif';
      context.textBaseline = 'middle';
      context.fillStyle = colours.muted;
      context.textAlign = 'left';
      context.fillText('Mode', 0, AXIS + ribbon / 2 + 1);
      context.fillText('Links', 0, top + 8);
      context.textAlign = 'center';
      for (const at of ticks(this.from, this.now, width - gutter)) {
        const x = this.x(at);
        if (x > gutter + 28 && x < width - 28) context.fillText(clock(at), x, 8);
      }
      this.drawModes(context, AXIS, ribbon);
      this.drawSteps(context, top, graph);
      this.drawFlags(context, top + graph + 3);
    }

    drawModes(context, y, height) {
      const { colours, model } = this;
      const edge = this.x(this.contact);
      model.modes.forEach(({ at, mode }, index) => {
        const next = model.modes[index + 1];
        const x = Math.max(this.x(at), this.gutter);
        const end = Math.min(next ? this.x(next.at) : edge, edge);
        if (end <= this.gutter || end <= x) return;
        const colour = colours[mode] ?? colours.muted;
        context.fillStyle = colour;
        if (mode === 'live') context.fillRect(x, y, end - x, height);
        else {
          context.globalAlpha = 0.25;
          context.fillRect(x, y, end - x, height);
          context.globalAlpha = 1;
          hatch(context, x, y, end - x, height, colour, 7);
          context.fillRect(x, y, end - x, 2);
          context.fillRect(x, y + height - 2, end - x, 2);
        }
        const text = mode.toUpperCase();
        context.font = '600 11px system-ui, sans-serif';
        const wide = context.measureText(text).width;
        if (end - x < wide + 12) return;
        context.textAlign = 'left';
        if (mode !== 'live') {
          context.fillStyle = colours.surface;
          context.fillRect(x + 4, y + 3, wide + 6, height - 6);
        }
        context.fillStyle = mode === 'live' ? colours.surface : colours.text;
        context.fillText(text, x + 7, y + height / 2 + 0.5);
      });
    }

    // Links by kind, stacked.
    drawSteps(context, top, height) {
      const { colours, model, gutter, width } = this;
      const edge = Math.min(this.x(this.contact), width);
      const first = Math.max(0, model.steps.findLastIndex((step) => step.at <= this.from));
      const steps = model.steps.slice(first);
      const sum = (step) => step.channel + step.gossip + step.persona;
      const most = Math.max(1, ...steps.map(sum));
      context.fillStyle = colours.muted;
      context.textAlign = 'right';
      context.font = '12px system-ui, sans-serif';
      context.fillText(String(most), gutter - 6, top + 6);
      context.fillText('0', gutter - 6, top + height - 4);
      context.fillStyle = colours.line;
      context.fillRect(gutter, top + height, width - gutter, 1);
      steps.forEach((step, index) => {
        // Whole pixels, or a seam would show between two steps.
        const x = Math.round(Math.max(this.x(step.at), gutter));
        const next = steps[index + 1];
        const end = Math.round(Math.min(next ? this.x(next.at) : edge, edge));
        if (end <= gutter || end <= x) return;
        let y = top + height;
        for (const kind of ['gossip', 'persona', 'channel']) {
          const tall = (step[kind] / most) * height;
          if (tall <= 0) continue;
          y -= tall;
          context.fillStyle = colours[`lane-${kind}`];
          if (kind === 'persona') {
            hatch(context, x, y, end - x, tall, colours['lane-persona']);
            context.fillRect(x, y, end - x, Math.min(1, tall));
          } else context.fillRect(x, y, end - x, tall);
          if (kind === 'channel') {
            // A seam between the two, for eyes that do not tell the colours apart.
            context.fillStyle = colours.surface;
            context.fillRect(x, y + tall - 1, end - x, 1);
          }
        }
      });
    }

    // Which line is what, as far as there is room: lapses before returns, the newest first.
    drawFlags(context, y) {
      const { colours } = this;
      const time = (at) => (this.gutter < 100 ? '' : ` ${clock(at)}`);
      const newest = (list, text, colour) => list.slice(-40).reverse().map(({ at }) => [at, text + time(at), colour]);
      const placed = [];
      context.font = '600 11px system-ui, sans-serif';
      context.textAlign = 'left';
      for (const [at, text, colour] of [...newest(this.model.lapses, '▼ lapse', colours.alarm), ...newest(this.model.attaches, '▲ signer', colours.live)]) {
        const x = this.x(at);
        const wide = context.measureText(text).width;
        const left = Math.min(x + 3, this.width - wide);
        if (x < this.gutter || placed.some(([from, to]) => left < to + 8 && left + wide > from - 8)) continue;
        placed.push([left, left + wide]);
        context.fillStyle = colours.surface;
        context.fillRect(left - 2, y - 1, wide + 4, 16);
        context.fillStyle = colour;
        context.fillText(text, left, y + 8);
      }
    }

    drawLanes() {
      const { box, sizer, canvas } = this.parts;
      const lanes = this.lanes();
      const tall = `${lanes.length * ROW}px`;
      if (sizer.style.height !== tall) sizer.style.height = tall;
      const height = Math.min(box.clientHeight, lanes.length * ROW);
      const context = fit(canvas, this.width, Math.max(height, 1));
      if (lanes.length === 0) return;
      const scrolled = box.scrollTop;
      const first = Math.floor(scrolled / ROW);
      const last = Math.min(lanes.length, first + Math.ceil(height / ROW) + 1);
      // What lies behind all lanes is drawn once, and once more in front so that a bar does not hide a lapse.
      this.drawTimes(context, height, false);
      for (let row = first; row < last; row += 1) this.drawLane(context, lanes[row], row * ROW - scrolled);
      for (const { at } of this.model.lapses) this.drawLine(context, at, 0, height, this.colours.alarm, [5, 3]);
    }

    drawLane(context, lane, y) {
      const { colours, gutter } = this;
      if (lane.id === this.selected) {
        context.fillStyle = colours.raised;
        context.fillRect(0, y, gutter, ROW);
        context.fillStyle = colours.accent;
        context.fillRect(0, y, 3, ROW);
        context.fillRect(gutter, y, this.width, 1);
        context.fillRect(gutter, y + ROW - 1, this.width, 1);
      }
      context.font = '12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace';
      context.textAlign = 'left';
      context.textBaseline = 'middle';
      context.fillStyle = lane.gone ? colours.muted : colours.text;
      const short = gutter < 100 ? lane.id.slice(0, 8) : shortId(lane.id);
      context.fillText(lane.name ? lane.name.slice(0, gutter < 100 ? 8 : 15) : short, 20, y + ROW / 2 + 0.5);
      this.drawTag(context, lane, y);
      const edge = Math.min(this.x(this.contact), this.width);
      for (let index = lane.spans.length - 1; index >= 0; index -= 1) {
        const { at, state } = lane.spans[index];
        const next = lane.spans[index + 1];
        const x = Math.max(this.x(at), gutter);
        const end = Math.min(next ? this.x(next.at) : edge, edge);
        if (end <= gutter) break;
        if (end > x || next) mark(context, state, x, y, end - x, colours);
      }
    }

    // A filled diamond is a peer with a channel, a ring is one without.
    drawTag(context, lane, y) {
      const [cx, cy] = [11, y + ROW / 2];
      context.beginPath();
      if (lane.tag === 'channel-bearing') {
        context.fillStyle = this.colours['lane-channel'];
        context.moveTo(cx, cy - 5);
        context.lineTo(cx + 5, cy);
        context.lineTo(cx, cy + 5);
        context.lineTo(cx - 5, cy);
        context.fill();
      } else {
        context.strokeStyle = this.colours['lane-gossip'];
        context.lineWidth = 1.5;
        context.arc(cx, cy, 3.6, 0, Math.PI * 2);
        context.stroke();
      }
    }

    // The lane at a place of the scrolling box.
    laneAt(y) {
      return this.lanes()[Math.floor((y + this.parts.box.scrollTop) / ROW)] ?? null;
    }

    // Selects the lane that is `by` rows further, and brings it into sight.
    move(by) {
      const lanes = this.lanes();
      if (lanes.length === 0) return null;
      const here = lanes.findIndex((lane) => lane.id === this.selected);
      const row = Math.max(0, Math.min(lanes.length - 1, (here < 0 ? (by > 0 ? -1 : lanes.length) : here) + by));
      this.selected = lanes[row].id;
      const { box } = this.parts;
      if (row * ROW < box.scrollTop) box.scrollTop = row * ROW;
      else if ((row + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (row + 1) * ROW - box.clientHeight;
      return { lane: lanes[row], row, of: lanes.length };
    }

    // How many rows a page of the keyboard is.
    page() {
      return Math.max(1, Math.floor(this.parts.box.clientHeight / ROW) - 1);
    }

    // A sample of a state, for the legend.
    sample(canvas, state) {
      const context = fit(canvas, 28, ROW);
      const colours = palette(this.parts.box);
      if (state === 'lapse' || state === 'signer') {
        context.strokeStyle = state === 'lapse' ? colours.alarm : colours.live;
        context.lineWidth = 1.5;
        context.setLineDash(state === 'lapse' ? [5, 3] : []);
        context.beginPath();
        context.moveTo(14, 0);
        context.lineTo(14, ROW);
        context.stroke();
        context.setLineDash([]);
      } else if (state === 'away') {
        context.globalAlpha = 0.25;
        context.fillStyle = colours.safe;
        context.fillRect(0, 2, 28, 16);
        context.globalAlpha = 1;
      } else mark(context, state, 0, 0, 28, colours);
    }
  }

  const LEGEND = [
    ['channel', 'channel link'], ['gossip', 'gossip link'], ['persona', 'gossip under a persona'], ['held', 'held for the signer'],
    ['dialing', 'being dialled'], ['backoff', 'backing off'], ['down', 'down'], ['lapse', 'signer lapsed'], ['signer', 'signer attached'], ['away', 'no signer'],
  ];

  return { Model, View, STATES, UP, LEGEND, BOUNDS, sentence, span, millis, micros, clock, when, reason, plain, shortId, expiry };
})();
