// The toolbar's icon while sites are being answered.

const { action } = chrome;
/** So many sites are named. */
const NAMED = 3;

/** @param {string[]} sites  their origins */
export async function showActivity(sites) {
  const names = sites.slice(0, NAMED).map((site) => new URL(site).host).join(", ");
  const more = sites.length > NAMED ? ` and ${sites.length - NAMED} more` : "";
  await Promise.all([
    action.setBadgeText({ text: sites.length > 0 ? String(sites.length) : "" }),
    action.setBadgeBackgroundColor({ color: "#2f56d8" }),
    action.setTitle({ title: sites.length > 0 ? `DOPPLER answers ${names}${more}` : "DOPPLER" }),
  ]);
}
