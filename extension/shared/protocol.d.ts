// Written by `cargo xtask protocol` from extension/protocol.

// Constants: the type check compares their copies in JavaScript.
export type HostName = "com.doppler.host";
export type NativeProtocol = 1;

/** Native messages: what the service worker asks the native host. */
export interface NativeMethods {
  "hello": { params: HelloParams; done: Greeting };
  "ping": { params: Nothing; done: Nothing };
  "models.list": { params: Nothing; done: HostModels };
  "models.stat": { params: ModelId; done: OpenedModel };
  "models.open": { params: ModelId; done: OpenedModel };
  "models.close": { params: ModelId; done: Nothing };
  "read": { params: ReadParams; done: ReadDone };
}

/** What the engine's worker asks the offscreen document. */
export interface WorkerMethods {
  "models.open": { params: OpenParams; done: Launch };
  "models.close": { params: ModelId; done: Nothing };
  "models.context": { params: ModelId; done: number | null };
  "read": { params: ReadParams; done: ReadDone };
  "tuning.read": { params: TunedDevice; done: string | null };
  "tuning.write": { params: WriteTuningParams; done: Nothing };
  "tuning.clear": { params: Nothing; done: Nothing };
}

/**
 * How a model is stored.
 */
export type Format = "gguf" | "safetensors";

/**
 * Answer to [`Hello`].
 */
export type Greeting = { 
/**
 * The version that the host speaks.
 */
protocol: number, 
/**
 * The host's own version.
 */
version: string, 
/**
 * Address of its HTTP server, without a path.
 */
base: string, 
/**
 * Opens the HTTP server. It is secret.
 */
token: string, };

/**
 * Parameters of [`Hello`].
 */
export type HelloParams = { 
/**
 * The version that the extension speaks.
 */
protocol: number, 
/**
 * The extension's own version.
 */
extension: string, };

/**
 * The words by which the extension tells failures of the host apart.
 */
export type HostCode = "protocol" | "unknown_method" | "malformed" | "too_large" | "not_found" | "changed" | "unreadable" | "not_a_model" | "too_many" | "config" | "failed";

/**
 * Why the host refuses.
 */
export type HostFailure = { 
/**
 * For programs.
 */
code: HostCode, 
/**
 * One sentence that says what to do. It may name files, and has no paths.
 */
message: string, 
/**
 * With [`HostCode::Protocol`].
 */
data?: Spoken, };

/**
 * A model in the list.
 */
export type HostModel = { 
/**
 * 32 hexadecimal digits: the same as long as the files stay where they are.
 */
id: string, 
/**
 * What the user knows it by.
 */
name: string, 
/**
 * Bytes of its files.
 */
bytes: number, 
/**
 * How it is stored.
 */
format: Format, 
/**
 * Number of its files.
 */
files: number, 
/**
 * When the last of its files was written, in milliseconds since 1970.
 */
modified: number, 
/**
 * What of it is not used, a sentence each.
 */
notes?: Array<string>, };

/**
 * Answer to [`ListModels`].
 */
export type HostModels = { 
/**
 * By name.
 */
models: Array<HostModel>, 
/**
 * What could not be read or does not fit, a sentence each, without paths.
 */
problems: Array<string>, };

/**
 * A model of the native host, open, and how to reach its bytes.
 */
export type Launch = { 
/**
 * [`Greeting::base`](crate::native::Greeting::base).
 */
base: string, 
/**
 * [`Greeting::token`](crate::native::Greeting::token).
 */
token: string, 
/**
 * Its files, in their order.
 */
files: Array<OpenedFile>, };

/**
 * A model that can be chosen.
 */
export type Listed = { 
/**
 * Its id.
 */
id: string, 
/**
 * Its name for people.
 */
name: string, 
/**
 * Where it is.
 */
source: Source, 
/**
 * Bytes of its files.
 */
bytes?: number, 
/**
 * How it is stored.
 */
format?: Format, };

/**
 * A model by its id.
 */
export type ModelId = { 
/**
 * [`HostModel::id`].
 */
id: string, };

/**
 * No parameters, or an answer that says no more than that it is done.
 */
export type Nothing = Record<symbol, never>;

/**
 * Parameters of [`OpenModel`].
 */
export type OpenParams = { 
/**
 * Which model.
 */
id: string, 
/**
 * Whether the worker has it open, and the connection broke. It is closed once for both.
 */
again?: boolean, };

/**
 * A file of an open model.
 */
export type OpenedFile = { 
/**
 * Its name, within the model's folder if there is one.
 */
name: string, 
/**
 * Its length.
 */
bytes: number, 
/**
 * Where the HTTP server has it: follows [`Greeting::base`].
 */
path: string, 
/**
 * Another one when the file is another one, or was changed.
 */
etag: string, };

/**
 * Answer to [`OpenModel`] and [`StatModel`].
 */
export type OpenedModel = { 
/**
 * [`HostModel::id`].
 */
id: string, 
/**
 * What the user knows it by.
 */
name: string, 
/**
 * Bytes of its files.
 */
bytes: number, 
/**
 * How it is stored.
 */
format: Format, 
/**
 * What of it is not used, a sentence each.
 */
notes: Array<string>, 
/**
 * Its files, in their order.
 */
files: Array<OpenedFile>, };

/**
 * Answer to [`Read`].
 */
export type ReadDone = { 
/**
 * The bytes in base64.
 */
data: string, };

/**
 * Parameters of [`Read`].
 */
export type ReadParams = { 
/**
 * Which model.
 */
id: string, 
/**
 * Which of its files, by its place in [`OpenedModel::files`].
 */
file: number, 
/**
 * First byte.
 */
offset: number, 
/**
 * Number of bytes, at most [`MAX_READ`].
 */
bytes: number, 
/**
 * [`OpenedFile::etag`]: bytes of another file are not wanted.
 */
etag: string, };

/**
 * Where a model is.
 */
export type Source = "embedded" | "host" | "picked";

/**
 * What the host speaks.
 */
export type Spoken = { 
/**
 * [`PROTOCOL`].
 */
protocol: number, };

/**
 * A kind of device by what tells it from others.
 */
export type TunedDevice = { 
/**
 * Names and features.
 */
device: string, };

/**
 * Parameters of [`WriteTuning`].
 */
export type WriteTuningParams = { 
/**
 * As [`TunedDevice::device`].
 */
device: string, 
/**
 * What to keep; `None`: nothing.
 */
text: string | null, };
