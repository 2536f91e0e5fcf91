"""How well the texts of a page can be read, as a script for the browser."""

CONTRASTS = """() => {
  const channel = (v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const ground = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const c = parse(getComputedStyle(n).backgroundColor);
      if (c[3] === 1) return c;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
    if (!own || ['title', 'style'].includes(node.nodeName)) continue;
    const style = getComputedStyle(node);
    const svg = node.ownerSVGElement;
    const box = svg && node.parentElement.querySelector(':scope > rect') && svg.matches('.graph');
    const back = box ? parse(getComputedStyle(node.parentElement.querySelector('rect')).fill) : ground(node);
    const ink = parse(svg ? style.fill : style.color), alpha = Number(style.opacity) * ink[3];
    const seen = ink.slice(0, 3).map((v, i) => v * alpha + back[i] * (1 - alpha));
    const [a, b] = [light(seen), light(back)];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push(`${node.nodeName}.${node.getAttribute('class')} ${ratio.toFixed(2)}: ${node.textContent.slice(0, 40)}`);
  }
  return [...new Set(found)];
}"""
"""Names every text whose contrast with what lies behind it is below WCAG's AA."""
