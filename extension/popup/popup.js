// Starts the popup: a small wasm module (extension/ui) that fills popup.html.

import init, { start } from "../pkg/ui/doppler_ui.js";
import { connectEngine } from "../shared/engine-port.js";
import { files } from "./files.js";

await init();
start(connectEngine, files);
performance.mark("doppler-usable");
