// Tooltips that follow the pointer, made from the titles that browsers would otherwise show late.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const titles = new WeakMap();
  document.querySelectorAll(".hit > title").forEach((title) => {
    titles.set(title.parentNode, title.textContent);
    title.remove();
  });
  document.querySelectorAll("svg[role=img] > title").forEach((title) => {
    title.parentNode.setAttribute("aria-label", title.textContent);
    title.parentNode.removeAttribute("aria-labelledby");
    title.remove();
  });
  const show = (event) => {
    const hit = event.target.closest ? event.target.closest(".hit") : null;
    tip.hidden = !hit;
    if (!hit) return;
    tip.textContent = titles.get(hit);
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const left = Math.max(8, Math.min(event.clientX + 14, room));
    const below = event.clientY + 18;
    const fits = below + tip.offsetHeight < window.innerHeight;
    const top = fits ? below : event.clientY - tip.offsetHeight - 12;
    tip.style.transform = `translate(${left}px, ${top}px)`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
