// The counts of the groups, alive.

const EVERY_MS = 5000;
const places = new Map([...document.querySelectorAll("tr[data-group]")].map((row) => [row.dataset.group, row.querySelector("[data-count]")]));

async function renew() {
  if (document.hidden) return;
  const answer = await fetch("/v1/groups").catch(() => null);
  if (!answer?.ok) return;
  for (const group of (await answer.json()).items) {
    const place = places.get(group.name);
    if (place) place.textContent = `${group.count}${group.is_exact ? "" : "+"}`;
  }
}

if (places.size) setInterval(renew, EVERY_MS);
