// Starts the popup: a small wasm module (extension/ui) that fills popup.html.

import init, { start } from "../pkg/ui/doppler_ui.js";
import { connectEngine } from "../shared/engine-port.js";

await init();
start(connectEngine);
performance.mark("doppler-usable");
