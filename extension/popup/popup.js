// Starts the popup: a small wasm module (extension/ui) that fills popup.html.

import init, { start } from "../pkg/ui/doppler_ui.js";
import { connectEngine } from "../shared/engine-port.js";

await init({ module_or_path: new URL("../pkg/ui/doppler_ui_bg.wasm", import.meta.url) });
start(connectEngine);
performance.mark("doppler-usable");
