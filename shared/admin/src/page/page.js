// Keeps the page current: the server sends the part that changes, and only what differs in it is replaced, so that focus,
// selection, scrolling and what is folded open stay.
(() => {
  'use strict';
  const live = document.getElementById('live');
  const stale = document.getElementById('stale');
  let source = null, again = 0;

  const patch = (old, fresh) => {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) if (name !== 'open' && !fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of [...fresh.attributes]) if (name !== 'open' && old.getAttribute(name) !== value) old.setAttribute(name, value);
    const named = new Map([...old.children].filter(child => child.id).map(child => [child.id, child]));
    let at = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const known = child.id ? named.get(child.id) : at && !at.id && at.nodeName === child.nodeName ? at : null;
      if (!known) {
        old.insertBefore(child, at);
        continue;
      }
      if (known === at) at = at.nextSibling;
      else old.insertBefore(known, at);
      patch(known, child);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  };

  const show = html => {
    const fresh = new DOMParser().parseFromString(html, 'text/html').getElementById('live');
    if (!fresh) return;
    patch(live, fresh);
    document.title = live.dataset.title;
    stale.hidden = true;
  };

  const fetched = () => fetch(location.pathname).then(answer => answer.text()).then(show);

  const open = () => {
    clearTimeout(again);
    if (source || document.hidden) return;
    source = new EventSource(live.dataset.stream);
    source.onmessage = event => show(event.data);
    source.onerror = () => {
      stale.hidden = false;
      if (source && source.readyState === EventSource.CLOSED) {
        // Turned away, because too many watch: look from time to time instead.
        source = null;
        again = setTimeout(open, 5000);
        fetched().catch(() => {});
      }
    };
  };

  const close = () => {
    clearTimeout(again);
    if (source) source.close();
    source = null;
  };

  document.addEventListener('visibilitychange', () => (document.hidden ? close() : open()));
  addEventListener('pagehide', close);
  addEventListener('pageshow', open);
  open();
})();
