// wgpu's web backend asks only for the features that it knows. This asks for others around it, once per device.
const wanted = new Set();
let granted = new Set();
let info = null;

const requestDevice = globalThis.GPUAdapter?.prototype.requestDevice;
if (requestDevice) {
  GPUAdapter.prototype.requestDevice = async function (descriptor = {}) {
    const extra = [...wanted].filter((name) => this.features.has(name));
    const requiredFeatures = [...new Set([...(descriptor.requiredFeatures ?? []), ...extra])];
    const device = await requestDevice.call(this, { ...descriptor, requiredFeatures });
    granted = new Set(device.features);
    info = this.info;
    return device;
  };
}

export function requestFeature(name, on) {
  if (on) wanted.add(name);
  else wanted.delete(name);
}

export function grantedFeature(name) {
  return granted.has(name);
}

export function adapterVendor() {
  return info?.vendor ?? "";
}

export function adapterDescription() {
  return info?.description || info?.device || info?.architecture || "unknown adapter";
}

export function subgroupMinSize() {
  return info?.subgroupMinSize ?? 32;
}
