// The status page: asks for what it shows, follows /v1/events, and puts it on the page. The picture is drawn by picture.js.
//
// The read token comes in the address's fragment, which no browser sends, or is typed in. It is kept in the tab's session storage and
// sent in a header only. A page that carries a block of JSON with the id `recording` shows that instead, and asks nobody for anything.
'use strict';

(() => {
  const { Model, View, STATES, LEGEND, sentence, span, millis, micros, clock, when, reason, plain, expiry } = Picture;
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;

  const KEY = 'pilotlight.token';
  // Waits before another try, in milliseconds. Each is cut by up to half, so that many pages do not come back at once.
  const BACKOFF = [500, 1000, 2000, 4000, 8000, 15000];
  // The daemon shows every 15 s that it is there.
  const SILENCE = 40000;
  // How often counts are asked for, and at most how often all peers are.
  const INFO_EVERY = 5000;
  const PEERS_EVERY = 10000;
  const LINE_MAX = 1 << 20;
  const ROWS = 50;
  const SHOWN = 100;

  const MEANINGS = {
    live: 'The signer is attached. Channel links and gossip links are served.',
    safe: 'The signer is away. Channel links are torn down; gossip links live on.',
    waiting: 'No signer has come yet. Gossip goes on under a persona; channel peers wait.',
    draining: 'Links are being flushed and closed; the daemon is about to end.',
    none: 'Nothing is heard from the daemon. What is shown below is from before.',
    unknown: 'Nothing is known yet.',
  };
  const WORDS = { live: 'Live', safe: 'Safe mode', waiting: 'Waiting', draining: 'Draining', none: 'No contact', unknown: '…' };
  const FLAME = 'M33 4c2 12 17 19 17 36a18 18 0 0 1-36 0c0-9 5-14 9-19 1 6 4 9 7 10-2-10 0-20 3-27z';
  const ICONS = { live: ['%231a7f4b', FLAME], safe: ['%23b45f06', 'M32 5 54 13v17c0 14-9 24-22 29C19 54 10 44 10 30V13z'], other: ['%23667085', 'M32 7a25 25 0 1 0 0 50 25 25 0 0 0 0-50z'], none: ['%23b42318', 'M12 12 52 52M52 12 12 52'] };

  const model = new Model();
  const view = new View(model, { overview: $('overview'), box: $('lanes'), sizer: $('sizer'), canvas: $('lanes-canvas') });

  let recording = null;
  let token = null;
  let info = null;
  // The daemon's clock less ours, in seconds.
  let skew = 0;
  let contact = 'none';
  let lostAt = null;
  // What it has said, if it has said anything but that it is not there.
  let lostWhy = '';
  let lastSeen = null;
  let lastEventId = null;
  let attempt = 0;
  let nextTry = null;
  let running = null;
  let peersDue = 0;
  let infoDue = 0;
  let page = 0;
  let shownVersion = null;
  let frame = 0;

  const now = () => (recording ? recording.until : Date.now() / 1000 + skew);
  const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const make = (name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  // Rows of a description list, without touching what stays.
  function list(element, rows) {
    const text = JSON.stringify(rows);
    if (element.dataset.rows === text) return;
    element.dataset.rows = text;
    element.replaceChildren(...rows.map(([term, value]) => {
      const row = make('div');
      row.append(make('dt', term), make('dd', value));
      return row;
    }));
  }

  // --- drawing what is known ------------------------------------------------------------------------------------------

  function shownMode() {
    if (!recording && (contact === 'lost' || contact === 'ended') && lostAt !== null) return 'none';
    return model.mode ?? 'unknown';
  }

  // At once and not in the next frame: a page in the background gets no frames, and its title is what is seen of it.
  function showMode() {
    const mode = shownMode();
    if (root.dataset.mode !== mode) {
      root.dataset.mode = mode;
      put($('mode'), WORDS[mode] ?? mode);
      put($('meaning'), MEANINGS[mode] ?? '');
      document.title = mode === 'unknown' ? 'Pilotlight' : `${WORDS[mode]} · Pilotlight`;
      const [colour, path] = ICONS[mode] ?? ICONS.other;
      const paint = mode === 'none' ? `fill='none' stroke='${colour}' stroke-width='12'` : `fill='${colour}'`;
      $('icon').href = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 64 64'><path ${paint} d='${path}'/></svg>`;
    }
    changed();
  }

  function since() {
    const mode = shownMode();
    if (mode === 'unknown') return '';
    if (mode === 'none') return `Last known: ${WORDS[model.mode] ?? 'nothing'}, as of ${when(lastSeen ?? lostAt, now())}.`;
    const last = model.modes[model.modes.length - 1];
    return last ? `For ${span(now() - last.at)}, since ${when(last.at, now())}` : '';
  }

  function showContact() {
    const words = { none: 'Not connected', connecting: 'Connecting', live: 'Connected', refused: 'Not let in', ended: 'The daemon has ended', lost: lostWhy ? 'Refused' : 'Not reachable', recording: 'A recording' };
    root.dataset.contact = contact;
    put($('contact-text'), words[contact]);
    const broken = (contact === 'lost' || contact === 'ended') && lostAt !== null;
    $('broken').hidden = !broken;
    if (broken) {
      const left = nextTry === null ? 0 : Math.round((nextTry - Date.now()) / 1000);
      const since = when(lostAt, now());
      put($('broken-text'), lostWhy ? `The daemon has refused since ${since}: ${lostWhy}.` : `The daemon is not reachable since ${since}.`);
      // Beside the alert and not in it: a screen reader would count down aloud.
      put($('broken-wait'), left < 1 ? 'Trying again.' : `Trying again in ${left} s.`);
    }
  }

  function showSigner() {
    const signer = info?.signer ?? {};
    // What /v1/info said may be older than the last event, which tells all but of a daemon that is about to end.
    const attached = model.mode === null ? undefined : model.mode === 'draining' ? signer.attached : model.mode === 'live';
    const last = model.attaches[model.attaches.length - 1];
    const lapse = model.lapses[model.lapses.length - 1];
    const gone = model.away(now()).at(-1);
    const known = shownMode() !== 'none' && attached !== undefined;
    const word = attached ? 'Attached' : 'Away';
    put($('signer-word'), known ? word : 'Not known');
    $('signer-word').dataset.is = !known ? '' : attached ? 'good' : 'bad';
    const rows = !known && attached !== undefined ? [['When last seen', word.toLowerCase()]] : [];
    if (attached && last) rows.push(['Since', `${when(last.at, now())} (${span(now() - last.at)})`]);
    if (attached === false && gone) rows.push(['Since', `${when(gone[0], now())} (${span(now() - gone[0])})`]);
    if (attached === false && lapse) rows.push(['Why', reason(lapse.reason)]);
    if (signer.kind) rows.push(['Kind', signer.kind === 'gateway' ? `dials in at ${signer.listen}` : signer.kind === 'embedded' ? 'embedded: its key is on this machine' : 'its key is elsewhere']);
    if (attached && signer.from) rows.push(['From', `${signer.from.addr} (${signer.from.software})`], ['Macaroon', signer.from.macaroon]);
    else if (attached && signer.kind === 'embedded') rows.push(['From', 'this process']);
    const near = info?.chain?.htlc_deadline;
    if (near) rows.push(['First HTLC', expiry(near.blocks_left)]);
    if (signer.behind) rows.push(['Load', 'it is behind: new dials wait']);
    const epoch = last?.epoch ?? info?.epoch;
    if (epoch) rows.push(['Epoch', String(epoch)]);
    if (!attached && signer.last_refusal) rows.push(['Last refused', `${when(signer.last_refusal.at, now())}: ${signer.last_refusal.detail}`]);
    list($('signer'), rows);
  }

  function showLapse() {
    const lapse = model.lapses[model.lapses.length - 1];
    put($('lapse-word'), lapse ? when(lapse.at, now()) : 'None');
    list($('lapse'), lapse ? [
      ['Ago', span(now() - lapse.at)], ['Reason', reason(lapse.reason)], ['Fence', micros(lapse.fence_us)], ['Teardown', millis(lapse.teardown_ms)],
      ['Dropped', String(lapse.dropped)], ['Retained', String(lapse.retained)],
    ] : [['', 'since the daemon started']]);
  }

  function showCounts() {
    const { counts } = model;
    const up = counts.channel + counts.gossip + counts.persona;
    put($('links-up'), String(up));
    put($('links-unit'), shownMode() === 'none' ? 'up when last seen' : 'up');
    list($('links'), [['Channel', String(counts.channel)], ['Gossip', String(counts.gossip)], ['Under a persona', String(counts.persona)],
      ...(info?.parked === undefined ? [] : [['Parked sockets', String(info.parked)]])]);
    const known = [...model.lanes.values()].reduce((sum, lane) => sum + (lane.gone ? 0 : 1), 0);
    const total = Math.max(info?.peers?.total ?? 0, known);
    put($('peers-total'), String(total));
    const waiting = ['dialing', 'awaited', 'held', 'backoff', 'down', 'not_dialable'].map((state) => [STATES[state].short, String(counts[state])]);
    list($('peers'), waiting.map(([word, n]) => [word[0].toUpperCase() + word.slice(1), n]));
    const left = total - known;
    const rows = view.lanes().length;
    $('lanes-empty').hidden = rows > 0 && left <= 0;
    put($('lanes-empty'), rows === 0 ? (known === 0 ? 'The daemon knows no peers yet.' : 'No peer is like that.') : `${left} further peers are not shown.`);
  }

  function showEvents() {
    const minor = $('minor').checked;
    const told = model.events.filter((told) => minor || told.level !== 'minor').slice(-SHOWN).reverse();
    $('events-empty').hidden = told.length > 0;
    const box = $('events');
    const old = new Map([...box.children].map((row) => [row.dataset.key, row]));
    const rows = told.map((told) => {
      const key = `${told.at} ${told.times} ${told.text}`;
      const kept = old.get(key);
      // Two may be alike to the millisecond: each has a row of its own.
      old.delete(key);
      if (kept) return kept;
      const row = make('li', undefined, told.level);
      row.dataset.key = key;
      const time = make('time', when(told.at, now()));
      time.dateTime = new Date(told.at * 1000).toISOString();
      const sign = make('span', told.sign, 'sign');
      sign.ariaHidden = 'true';
      row.append(time, sign, make('span', told.text + (told.times > 1 ? `  × ${told.times}` : ''), 'text'));
      return row;
    });
    if (rows.length !== box.children.length || rows.some((row, index) => row !== box.children[index])) box.replaceChildren(...rows);
  }

  function showTable() {
    if (!$('table-box').open) return;
    const lanes = view.lanes();
    const pages = Math.max(1, Math.ceil(lanes.length / ROWS));
    page = Math.min(page, pages - 1);
    const cell = (row, text, scope) => {
      const cell = make(scope ? 'th' : 'td', text);
      if (scope) cell.scope = scope;
      row.append(cell);
    };
    const rows = lanes.slice(page * ROWS, (page + 1) * ROWS).map((lane) => {
      const row = make('tr');
      const last = lane.spans[lane.spans.length - 1];
      cell(row, lane.name ? `${lane.name} (${lane.id})` : lane.id, 'row');
      cell(row, lane.tag);
      cell(row, STATES[lane.state].word);
      cell(row, last ? when(last.at, now()) : '–');
      cell(row, lane.addr ?? '–');
      cell(row, lane.fell ? `${when(lane.fell.at, now())}: ${plain(lane.fell.reason)}` : 'not seen');
      return row;
    });
    $('rows').replaceChildren(...rows);
    put($('table-caption'), `Peers ${lanes.length === 0 ? 0 : page * ROWS + 1} to ${page * ROWS + rows.length} of ${lanes.length}`);
    put($('rows-where'), `${lanes.length === 0 ? 0 : page * ROWS + 1} to ${page * ROWS + rows.length} of ${lanes.length}`);
    $('rows-before').disabled = page === 0;
    $('rows-after').disabled = page >= pages - 1;
  }

  function showDetail() {
    const lane = model.lanes.get(view.selected);
    if (lane) put($('detail'), sentence(lane, now()));
  }

  function show() {
    frame = 0;
    put($('mode-since'), since());
    showContact();
    showSigner();
    showLapse();
    showCounts();
    showDetail();
    view.draw(recording ? recording.until : now(), lastSeen === null ? now() : contact === 'live' ? now() : lastSeen);
    if (shownVersion !== model.version) {
      shownVersion = model.version;
      showEvents();
      showTable();
    }
  }

  // Everything that changes something asks for one frame.
  function changed() {
    if (frame === 0) frame = requestAnimationFrame(show);
  }

  // --- talking to the daemon ------------------------------------------------------------------------------------------

  const ask = (path, headers, signal) => fetch(path, {
    headers: { Authorization: `Bearer ${token}`, ...headers }, cache: 'no-store', credentials: 'omit', redirect: 'error', referrerPolicy: 'no-referrer', signal,
  });

  async function json(path, signal) {
    const answer = await ask(path, {}, signal);
    if (!answer.ok) throw Object.assign(new Error(path), { status: answer.status });
    return answer.json();
  }

  // What a refusal says, in its own words where it has some. A proxy in front may have others.
  async function refusal(answer) {
    const said = (await answer.json().catch(() => null))?.error;
    return said?.what ? [said.what, said.what_to_do].filter(Boolean).join('; ').slice(0, 400) : `HTTP ${answer.status}`;
  }

  async function askInfo(signal) {
    infoDue = Date.now() + INFO_EVERY;
    const asked = Date.now();
    const answer = await json('v1/info', signal);
    if (Number.isFinite(answer.now)) skew = answer.now - (asked + Date.now()) / 2000;
    info = answer;
    model.info(answer, now());
    put($('node-id'), answer.node_id);
    $('node').hidden = false;
    put($('version'), `Pilotlight ${answer.version}.`);
    showMode();
  }

  async function askPeers(signal) {
    peersDue = Date.now() + PEERS_EVERY;
    const asked = now();
    const answer = await json(`v1/peers?limit=${Picture.BOUNDS.lanes}`, signal);
    model.peers(answer, now(), asked);
    changed();
  }

  function take(event, id) {
    if (id) {
      // The part before the dash tells one run of the daemon from another.
      const run = id.split('-')[0];
      if (lastEventId && lastEventId.split('-')[0] !== run) model.gap(lastSeen ?? now());
      lastEventId = id;
    }
    if (event.event === 'missed') {
      event.at = now();
      model.gap(lastSeen ?? now());
      peersDue = 0;
    }
    lastSeen = now();
    model.event(event);
    if (['mode_changed', 'signer_lapsed', 'signer_attached', 'relit', 'drained'].includes(event.event)) {
      performance.clearMarks(event.event);
      performance.mark(event.event, { detail: event });
      infoDue = 0;
      showMode();
    } else changed();
  }

  // One block of the stream: `id`, `event` and `data` lines.
  function block(text) {
    let [data, id] = ['', null];
    for (const line of text.split('\n')) {
      if (line.startsWith('data: ')) data += line.slice(6);
      else if (line.startsWith('id: ')) id = line.slice(4);
    }
    if (!data) return;
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    if (event && typeof event.event === 'string') take(event, id);
  }

  async function follow(signal) {
    const answer = await ask('v1/events', { 'Last-Event-ID': lastEventId ?? '0' }, signal);
    if (!answer.ok) throw Object.assign(new Error('v1/events'), { status: answer.status, why: await refusal(answer) });
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let rest = '';
    let quiet = null;
    const listen = () => {
      clearTimeout(quiet);
      quiet = setTimeout(() => reader.cancel().catch(() => {}), SILENCE);
    };
    try {
      for (let first = true; ; first = false) {
        listen();
        const { done, value } = await reader.read();
        if (done) return;
        rest += decoder.decode(value, { stream: true });
        const blocks = rest.split('\n\n');
        rest = blocks.pop();
        if (rest.length > LINE_MAX) throw new Error('a line without end');
        if (first) connected();
        for (const text of blocks) {
          // What had happened before is told; what is asked for now is not older than what comes next.
          if (text === ': caught up') Promise.all([askInfo(signal), askPeers(signal)]).catch(() => {});
          else block(text);
        }
        lastSeen = now();
      }
    } finally {
      clearTimeout(quiet);
    }
  }

  function connected() {
    attempt = 0;
    lostAt = null;
    lostWhy = '';
    setContact('live');
  }

  function setContact(to) {
    contact = to;
    showMode();
  }

  async function run(signal) {
    while (!signal.aborted) {
      if (lostAt === null) setContact('connecting');
      nextTry = null;
      let [status, why] = [0, ''];
      try {
        await follow(signal);
      } catch (error) {
        ({ status = 0, why = '' } = error);
      }
      if (signal.aborted) return;
      if (status === 401) {
        refuse('The daemon does not take this token.');
        return;
      }
      lostWhy = why;
      if (lostAt === null) lostAt = lastSeen ?? now();
      const wait = BACKOFF[Math.min(attempt, BACKOFF.length - 1)] * (0.5 + Math.random() / 2);
      attempt += 1;
      nextTry = Date.now() + wait;
      setContact(model.mode === 'draining' ? 'ended' : 'lost');
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  let wake = () => {};

  function start() {
    running?.abort();
    running = new AbortController();
    delete root.dataset.asks;
    $('ask').hidden = true;
    $('forget').hidden = false;
    run(running.signal);
  }

  function refuse(why) {
    running?.abort();
    running = null;
    token = null;
    forgetStored();
    setContact(why ? 'refused' : 'none');
    put($('ask-why'), why);
    // Behind the question nothing is shown that may be old.
    root.dataset.asks = '';
    $('ask').hidden = false;
    $('forget').hidden = true;
    $('token').focus();
  }

  function forgetStored() {
    try {
      sessionStorage.removeItem(KEY);
    } catch { /* No storage: nothing is in it. */ }
  }

  function use(given) {
    token = given;
    try {
      sessionStorage.setItem(KEY, given);
    } catch { /* It is then kept until the page is left. */ }
    start();
  }

  // The token of the address, which is taken out of it at once.
  function fromAddress() {
    const given = new URLSearchParams(location.hash.slice(1)).get('token');
    if (given !== null) history.replaceState(null, '', location.pathname);
    return given && /^[0-9a-f]{64}$/.test(given) ? given : null;
  }

  function stored() {
    try {
      return sessionStorage.getItem(KEY);
    } catch {
      return null;
    }
  }

  // --- the person ------------------------------------------------------------------------------------------------------

  function select(found) {
    if (!found) return;
    const { lane, row, of } = found;
    const option = $('lane');
    option.ariaPosInSet = String(row + 1);
    option.ariaSetSize = String(of);
    put(option, sentence(lane, now()));
    changed();
  }

  function keys(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: view.page(), PageUp: -view.page(), Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    select(view.move(step));
  }

  function point(event) {
    const lane = view.laneAt(event.clientY - $('lanes').getBoundingClientRect().top);
    if (!lane || lane.id === view.selected) return;
    view.selected = lane.id;
    select(view.move(0));
  }

  function legend() {
    $('legend').replaceChildren(...LEGEND.map(([state, text]) => {
      const row = make('li');
      const sample = make('canvas');
      sample.ariaHidden = 'true';
      row.append(sample, make('span', text));
      view.sample(sample, state);
      return row;
    }));
  }

  function wire() {
    const again = () => {
      shownVersion = null;
      changed();
    };
    $('ask-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const given = $('token').value.trim();
      $('token').value = '';
      if (/^[0-9a-f]{64}$/.test(given)) use(given);
      else put($('ask-why'), 'A token is 64 hex digits.');
    });
    $('forget').addEventListener('click', () => refuse(''));
    $('retry').addEventListener('click', () => wake());
    // Only where browsers give it: on loopback and behind TLS.
    $('copy').hidden = !navigator.clipboard;
    $('copy').addEventListener('click', () => navigator.clipboard.writeText($('node-id').textContent).then(() => put($('copy'), 'Copied'), () => {}));
    $('only').addEventListener('change', (event) => { view.only = event.target.value; page = 0; again(); });
    $('span').addEventListener('change', (event) => { view.seconds = Number(event.target.value); changed(); });
    $('find').addEventListener('input', (event) => { view.find = event.target.value.trim().toLowerCase(); page = 0; again(); });
    $('minor').addEventListener('change', again);
    $('table-box').addEventListener('toggle', again);
    $('rows-before').addEventListener('click', () => { page -= 1; again(); });
    $('rows-after').addEventListener('click', () => { page += 1; again(); });
    const box = $('lanes');
    box.addEventListener('keydown', keys);
    box.addEventListener('focus', () => { if (!view.selected) select(view.move(1)); });
    box.addEventListener('scroll', changed, { passive: true });
    box.addEventListener('pointermove', point);
    box.addEventListener('pointerdown', point);
    new ResizeObserver(changed).observe(box);
    for (const query of ['(prefers-color-scheme: dark)', '(prefers-contrast: more)']) {
      matchMedia(query).addEventListener('change', () => { legend(); changed(); });
    }
    addEventListener('online', () => wake());
    document.addEventListener('visibilitychange', () => { if (!document.hidden) { wake(); changed(); } });
    addEventListener('hashchange', () => {
      const given = fromAddress();
      if (given) use(given);
    });
  }

  // Time passes: durations are told anew once a second, and the picture moves on. Nobody looks at a hidden page.
  function tick() {
    if (document.hidden) return;
    changed();
    if (contact !== 'live' || !running) return;
    const { signal } = running;
    if (Date.now() >= infoDue) askInfo(signal).catch(() => {});
    if (Date.now() >= peersDue) askPeers(signal).catch(() => {});
  }

  function play(block) {
    recording = JSON.parse(block.textContent);
    model.seen(recording.from);
    model.peers(recording.peers ?? [], recording.from, -Infinity);
    for (const event of recording.events ?? []) model.event(event);
    model.seen(recording.until);
    info = recording.info ?? null;
    view.seconds = 0;
    view.least = 1;
    lastSeen = recording.until;
    put($('node-id'), recording.node_id ?? '');
    $('node').hidden = !recording.node_id;
    put($('footer-note'), recording.title ?? 'A recording.');
    put($('version'), recording.version ? `Pilotlight ${recording.version}.` : '');
    $('span').value = '0';
    setContact('recording');
  }

  wire();
  legend();
  const block0 = $('recording');
  if (block0) play(block0);
  else {
    token = fromAddress() ?? stored();
    if (token) use(token);
    else refuse('');
    setInterval(tick, 1000);
  }
  changed();
})();
