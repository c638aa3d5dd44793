// Written by `cargo xtask protocol` from extension/protocol.

/** The native host's name for browsers. */
export const HOST_NAME: "com.doppler.host";
/** Version of native messages. */
export const PROTOCOL: 1;
/** Native messages that are forwarded for the offscreen document. */
export const FORWARDED: ["models.list", "models.open", "models.close", "read"];

/** Native messages: requests of the service worker to the native host. */
export interface NativeMethods {
  "hello": { params: HelloParams; done: Greeting; chunk: never };
  "ping": { params: Nothing; done: Nothing; chunk: never };
  "models.list": { params: Nothing; done: HostModels; chunk: never };
  "models.stat": { params: ModelId; done: OpenedModel; chunk: never };
  "models.open": { params: ModelId; done: OpenedModel; chunk: never };
  "models.close": { params: ModelId; done: Nothing; chunk: never };
  "read": { params: ReadParams; done: ReadDone; chunk: never };
}

/** Requests of the engine's worker to the offscreen document, besides forwarded native messages. */
export interface WorkerMethods {
  "models.open": { params: OpenParams; done: ModelBytes; chunk: never };
  "models.close": { params: ModelId; done: Nothing; chunk: never };
  "models.context": { params: ModelId; done: number | null; chunk: never };
  "tuning.read": { params: TunedDevice; done: string | null; chunk: never };
  "tuning.write": { params: WriteTuningParams; done: Nothing; chunk: never };
  "tuning.clear": { params: Nothing; done: Nothing; chunk: never };
}

/** Requests of the offscreen document to the engine's worker. */
export interface EngineMethods {
  "engine.status": { params: Nothing; done: EngineStatus; chunk: never };
  "models.list": { params: Nothing; done: Catalog; chunk: never };
  "models.load": { params: LoadParams; done: Model; chunk: never };
  "models.describe": { params: NamedModel; done: Model; chunk: never };
  "chat.completions": { params: ChatRequest; done: Completion; chunk: Chunk };
  "tokens.count": { params: ChatRequest; done: Count; chunk: Loaded };
  "engine.chats": { params: Nothing; done: RunningChats; chunk: never };
  "engine.verify": { params: VerifyParams; done: Verified; chunk: never };
  "engine.bench": { params: BenchParams; done: BenchReport; chunk: never };
  "engine.tune": { params: TuneParams; done: TuneReport; chunk: Trial };
  "engine.untune": { params: Nothing; done: Nothing; chunk: never };
}

/** Events of the engine's worker. */
export interface EngineEvents {
  "status": EngineStatus;
  "fatal": Reason;
}

/** Requests of the extension's own pages to the offscreen document. */
export interface UiMethods {
  "engine.status": { params: Nothing; done: EngineStatus; chunk: never };
  "models.list": { params: ListParams; done: ModelList; chunk: never };
  "models.chosen": { params: Nothing; done: ChosenModel; chunk: never };
  "models.choose": { params: Choice; done: Model; chunk: never };
  "models.describe": { params: Listing; done: Model; chunk: never };
  "models.forget": { params: ModelId; done: Nothing; chunk: never };
  "activity.list": { params: Nothing; done: ActivityList; chunk: never };
  "activity.stop": { params: Site; done: Nothing; chunk: never };
}

/** The same, about conversations. */
export interface ConversationMethods {
  "conversations.list": { params: Nothing; done: ConversationList; chunk: never };
  "conversations.get": { params: OptionalId; done: Opened; chunk: never };
  "conversations.new": { params: Nothing; done: Nothing; chunk: never };
  "conversations.send": { params: Question; done: Accepted; chunk: never };
  "conversations.stop": { params: ConversationId; done: Nothing; chunk: never };
  "conversations.regenerate": { params: ConversationId; done: Accepted; chunk: never };
  "conversations.delete": { params: ConversationId; done: Nothing; chunk: never };
}

/** Events for the extension's own pages. */
export interface UiEvents {
  "status": EngineStatus;
  "activity": Activity;
  "conversation": ConversationEvent;
  "storage": Storage;
}

/** Requests of web pages to the offscreen document. */
export interface PageMethods {
  "permissions.query": { params: Nothing; done: Permission; chunk: never };
  "permissions.request": { params: Press; done: Permission; chunk: never };
  "permissions.revoke": { params: Nothing; done: Permission; chunk: never };
  "models.list": { params: Nothing; done: PageCatalog; chunk: never };
  "chat.completions": { params: ChatRequest; done: Completion; chunk: Chunk };
  "tokens.count": { params: ChatRequest; done: Count; chunk: Loaded };
}

/** Events for web pages. */
export interface PageEvents {
  "permissionchange": Permission;
  "modelchange": PageModel;
  "disconnect": Disconnection;
}

/**
 * Ends a [`FetchRange`].
 */
export type AbortRange = { 
/**
 * [`FetchRange::id`].
 */
id: number, };

/**
 * Answer to `conversations.send` and `conversations.regenerate`.
 */
export type Accepted = { 
/**
 * Which conversation.
 */
id: string, };

/**
 * Detail of an `activity` event.
 */
export type Activity = { 
/**
 * Origins of the sites that are being answered.
 */
sites: Array<string>, };

/**
 * Answer to [`ListActivity`].
 */
export type ActivityList = { 
/**
 * The origins with open requests.
 */
origins: Array<OriginActivity>, 
/**
 * The loaded model.
 */
model?: Model, };

/**
 * The graphics adapter the engine runs on.
 */
export type Adapter = { 
/**
 * `nvidia`, `apple`, …
 */
vendor: string, 
/**
 * Name of the device, or its architecture where the browser hides the name.
 */
description: string, 
/**
 * Kind.
 */
tier: Tier, 
/**
 * Optional features that the engine uses.
 */
features: Array<string>, 
/**
 * The matrices that subgroups multiply, where a browser shows any.
 */
matrices: Matrices | null, };

/**
 * A frame of an answer: any number of chunks, then one of the others.
 */
export type Answer<T> = { 
/**
 * Of the request.
 */
id: number, 
/**
 * The part.
 */
chunk: T, 
/**
 * Of a streamed answer. Not for a page's script.
 */
part?: Part, } | { 
/**
 * Of the request.
 */
id: number, 
/**
 * The answer, or the rest of it.
 */
done: T, } | { 
/**
 * Of the request.
 */
id: number, 
/**
 * Why.
 */
error: Failure, };

/**
 * A request of the engine's worker to the offscreen document. Its fields have other names, because requests go the other way on the same
 * port.
 */
export type Ask<P> = { 
/**
 * The reply has the same.
 */
ask: number, 
/**
 * [`Method::NAME`](crate::Method::NAME).
 */
method: string, 
/**
 * Of the method.
 */
params: P, };

/**
 * The engine's `BenchOptions`, with a shape and the type of its weights.
 */
export type BenchParams = Record<string, unknown>;

/**
 * The engine's `Report`, with the browser's name.
 */
export type BenchReport = import("../bench/report.js").Report;

/**
 * `OpenAI`'s list of models.
 */
export type Catalog = { 
/**
 * `list`
 */
object: "list", 
/**
 * The models.
 */
data: Array<CatalogModel>, };

/**
 * `OpenAI`'s description of a model.
 */
export type CatalogModel = { 
/**
 * Its id.
 */
id: string, 
/**
 * `model`
 */
object: "model", 
/**
 * Seconds since 1970.
 */
created: number, 
/**
 * Its maker.
 */
owned_by: string, 
/**
 * Its name for people.
 */
name: string, };

/**
 * The engine's `ChatRequest`.
 */
export type ChatRequest = import("../page/doppler.js").ChatCompletionRequest;

/**
 * Parameters of [`ChooseModel`].
 */
export type Choice = { 
/**
 * Which model.
 */
id: string, 
/**
 * Tokens of its context, where memory lacks for as many as usual.
 */
context?: number, };

/**
 * The model that answers, or would.
 */
export type Chosen = { 
/**
 * Its id.
 */
id: string, 
/**
 * Its name for people.
 */
name: string, };

/**
 * Answer to [`GetChosen`].
 */
export type ChosenModel = { 
/**
 * Its name for people.
 */
name: string, 
/**
 * Its name for web pages.
 */
page: string, 
/**
 * Whether it is the user's own.
 */
local: boolean, };

/**
 * A part of a stream.
 */
export type Chunk = import("../page/doppler.js").ChatCompletionChunk;

/**
 * The engine's `Reference` and `Comparison`.
 */
export type Compared = Record<string, unknown>;

/**
 * A whole answer; nothing after a stream.
 */
export type Completion = import("../page/doppler.js").ChatCompletion | Nothing;

/**
 * Something happened to a conversation. On the wire the kind is the field `type`; it is read by hand, because serde's tagged
 * enums would be a tenth of the popup's code.
 */
export type ConversationEvent = { "type": "message" } & MessageChanged | { "type": "delta" } & TextAdded | { "type": "deleted" } & Deleted;

/**
 * A conversation.
 */
export type ConversationId = { 
/**
 * Unique among conversations.
 */
id: string, };

/**
 * Answer to `conversations.list`.
 */
export type ConversationList = { 
/**
 * Why conversations cannot be stored; `None`: they are.
 */
problem: string | null, 
/**
 * Newest first.
 */
data: Array<Summary>, };

/**
 * Answer to [`CountTokens`].
 */
export type Count = { 
/**
 * Of the conversation.
 */
tokens: number, 
/**
 * That prompt and answer may have together.
 */
context: number, };

/**
 * The conversation is gone.
 */
export type Deleted = { 
/**
 * Which conversation.
 */
id: string, 
/**
 * Number of this event.
 */
seq: number, };

/**
 * With a message that says what the user can do.
 */
export type Disconnection = { message?: string };

/**
 * The engine's state.
 */
export type EngineState = "idle" | "loading" | "ready" | "failed";

/**
 * Answer to `engine.status`, and the `status` event. `T` is the engine's type of the kernels' settings. The popup does without the fields
 * that are not read (`skip_deserializing`), here and in what it holds.
 */
export type EngineStatus = { 
/**
 * The engine's state.
 */
state: EngineState, 
/**
 * The model that is being loaded or failed.
 */
id?: string, 
/**
 * How its bytes come, where there are several ways.
 */
transport?: Transport, 
/**
 * Loaded part, 0 to 1.
 */
progress?: number, 
/**
 * The adapter that the engine runs on, once known.
 */
adapter?: Adapter, 
/**
 * The settings of the kernels, once known.
 */
tuning?: Settings, 
/**
 * The settings that were found for this device, once known; null: none, the defaults are used.
 */
tuned?: Tuned | null, 
/**
 * The loaded model.
 */
model?: Model, 
/**
 * How that was loaded.
 */
load?: LoadReport, 
/**
 * Why it failed.
 */
error?: Failure, 
/**
 * Whether a model of the user's is the chosen one; the offscreen document tells it on asking.
 */
local?: boolean, 
/**
 * The sites that are being answered; the offscreen document tells them on asking.
 */
sites?: Array<string>, 
/**
 * The chosen model; the offscreen document tells it on asking.
 */
chosen?: Chosen, };

/**
 * A failure as the wire carries it.
 */
export type Failure = { 
/**
 * A `DOMException` name.
 */
name: string, 
/**
 * A sentence that says what happened and what to do.
 */
message: string, 
/**
 * A word for programs, such as [`CONTEXT_EXCEEDED`].
 */
code: string, 
/**
 * Whether web pages may read the message; only the engine's worker says so.
 */
public?: boolean, 
/**
 * Depends on the code. Failures that are not the engine's may have other data.
 */
data?: unknown, };

/**
 * The data of the engine's failures.
 */
export type FailureData = { 
/**
 * Tokens of a conversation that is too long.
 */
requested?: number, 
/**
 * Tokens of the context that it does not fit.
 */
quota?: number, 
/**
 * Memory of a model that does not fit the device.
 */
memory?: Memory, 
/**
 * Tokens of context with which it needs that.
 */
context?: number, 
/**
 * The most tokens of context with which it would fit.
 */
largest_context?: number, 
/**
 * The field of the request that is refused.
 */
param?: string, };

/**
 * Fetches a range of a file.
 */
export type FetchRange = { 
/**
 * All answers have the same.
 */
id: number, 
/**
 * Of the file.
 */
url: string, 
/**
 * Of the request.
 */
headers: RangeHeaders, 
/**
 * Bytes of the pieces in which it comes.
 */
lengths: Array<number>, };

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
 * Its name for people.
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
 * Parts of it that are not used, a sentence each.
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
 * Problems of models that cannot be read or do not fit, a sentence each, without paths.
 */
problems: Array<string>, };

/**
 * How the native host is.
 */
export type HostState = { 
/**
 * Why it does not answer.
 */
error?: Failure, };

/**
 * A model of the native host, open, and how to reach its bytes.
 */
export type Launch = { 
/**
 * Its name for people.
 */
name: string, 
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
 * The engine's `LengthReport`.
 */
export type LengthReport = import("../bench/report.js").Length;

/**
 * Parameters of [`ListModels`].
 */
export type ListParams = { 
/**
 * Whether also what the native host has, which takes it a while to find. Not said, it is wanted.
 */
host?: boolean, };

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
 * Parameters of [`DescribeModel`].
 */
export type Listing = { 
/**
 * Which model.
 */
id: string, 
/**
 * Bytes of its files, as listed: an answer for others is out of date.
 */
bytes?: number | null, };

/**
 * Parameters of [`LoadModel`].
 */
export type LoadParams = { 
/**
 * Its id; `None`: the embedded one.
 */
model?: string, 
/**
 * Tokens of its context, if not as many as usual.
 */
context?: number, };

/**
 * How long a model took to load.
 */
export type LoadReport = { 
/**
 * All in all.
 */
seconds: number, 
/**
 * Where the time of reading the weights went.
 */
times: LoadTimes, 
/**
 * Memory of the worker's wasm module.
 */
wasm_bytes: number, };

/**
 * Seconds of reading the weights.
 */
export type LoadTimes = { 
/**
 * Waiting for bytes of the file.
 */
read: number, 
/**
 * Converting them and handing them to the device.
 */
write: number, 
/**
 * Waiting for the device.
 */
device: number, };

/**
 * A chunk of [`CountTokens`], from the offscreen document to web pages.
 */
export type Loaded = { 
/**
 * Loaded part of the model, 0 to 1.
 */
loaded: number, };

/**
 * The matrices that a browser's subgroups multiply, for people.
 */
export type Matrices = { 
/**
 * All shapes that the adapter lists.
 */
shapes: Array<string>, 
/**
 * The one that suits kernels.
 */
used: string | null, 
/**
 * Why there is none.
 */
unused_because: string | null, };

/**
 * Bytes on the device, and for what.
 */
export type Memory = { 
/**
 * Weights.
 */
weights: number, 
/**
 * Keys and values of the context.
 */
cache: number, 
/**
 * Activations and state.
 */
scratch: number, };

/**
 * One message of a conversation.
 */
export type Message = { 
/**
 * Unique among all messages.
 */
id: string, 
/**
 * Its author.
 */
role: Role, 
/**
 * Plain text from the user, Markdown from the model.
 */
content: string, 
/**
 * The model's thought before the answer, as Markdown.
 */
thinking?: string, 
/**
 * Milliseconds for which it thought, once it has ended.
 */
thinking_ms?: number, 
/**
 * How far it got.
 */
state: Progress, 
/**
 * `stop` or `length`.
 */
finish?: string, 
/**
 * How fast it came.
 */
stats?: Stats, 
/**
 * Why it failed.
 */
error?: Failure, };

/**
 * Message number `index` is now `message`, and none follows it.
 */
export type MessageChanged = { 
/**
 * Which conversation.
 */
id: string, 
/**
 * Number of this event.
 */
seq: number, 
/**
 * Position of the message.
 */
index: number, 
/**
 * The message.
 */
message: Message, 
/**
 * The conversation's line in the list.
 */
summary: Summary, };

/**
 * The properties of a model, and the memory that it needs.
 */
export type Model = { 
/**
 * Its id.
 */
id: string, 
/**
 * Its name for people.
 */
name: string, 
/**
 * Such as `llama`.
 */
architecture: string, 
/**
 * Weight format, such as `Q8_0`.
 */
quantization: string, 
/**
 * Number of weights.
 */
parameters: number, 
/**
 * Bytes of its files.
 */
file_bytes: number, 
/**
 * Tokens that prompt and answer may have together.
 */
context: number | null, 
/**
 * Bytes on the device.
 */
memory: Memory, 
/**
 * Elements of the embeddings of texts that it makes; `None`: it makes none.
 */
embedding: number | null, 
/**
 * Whether it continues text.
 */
generates: boolean, 
/**
 * Parts of the file that are not used, or used otherwise than it says: a sentence each.
 */
notes?: Array<string>, };

/**
 * A [`Launch`], or what the user picked: its blobs are not data.
 */
export type ModelBytes = Launch | import("./picked.js").OpenModel;

/**
 * A model by its id.
 */
export type ModelId = { 
/**
 * [`HostModel::id`].
 */
id: string, };

/**
 * Answer to `models.list`.
 */
export type ModelList = { 
/**
 * All that can be chosen.
 */
data: Array<Listed>, 
/**
 * The id of the one that answers.
 */
chosen: string, 
/**
 * Problems of the native host's models.
 */
problems: Array<string>, 
/**
 * The native host.
 */
host: HostState, };

/**
 * Parameters of [`DescribeModel`].
 */
export type NamedModel = { 
/**
 * Its id; `None`: the embedded one.
 */
model?: string, };

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
 * Answer to `conversations.get`.
 */
export type Opened = { 
/**
 * The conversation; `None` when there is no current one.
 */
conversation: Snapshot | null, };

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
 * Its name for people.
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
 * Parts of it that are not used, a sentence each.
 */
notes: Array<string>, 
/**
 * Its files, in their order.
 */
files: Array<OpenedFile>, };

/**
 * A conversation, or the current one.
 */
export type OptionalId = { 
/**
 * Which conversation.
 */
id?: string, };

/**
 * The conversations of an origin.
 */
export type OriginActivity = { 
/**
 * A site, or the extension itself.
 */
origin: string, 
/**
 * Names of the models that answer, for people.
 */
models: Array<string>, 
/**
 * Conversations that are computed.
 */
running: number, 
/**
 * Those that wait.
 */
waiting: number, 
/**
 * Tokens that they have in the cache.
 */
tokens: number, 
/**
 * Tokens of their answers in a second, as it is now.
 */
tokens_per_second: number, };

/**
 * `OpenAI`'s list of models, with the one that answers.
 */
export type PageCatalog = { object: "list", data: import("../page/doppler.js").Model[] };

/**
 * The name that pages know the model by.
 */
export type PageModel = { model: string };

/**
 * The tokens behind a chunk's text, to go on behind them with a [`Resume`].
 */
export type Part = { 
/**
 * A number that another model has not, and that does not tell which model it is.
 */
model: number, 
/**
 * Those that came since the chunk before.
 */
tokens: Array<number>, };

/**
 * Parameters of [`READ`].
 */
export type PartsRead = { 
/**
 * Since it was said last.
 */
parts: number, };

/**
 * The state of a page's permission.
 */
export type Permission = { state: import("../page/doppler.js").PermissionState };

/**
 * Whether the user has just pressed something, and where on the screen.
 */
export type Press = { activated: boolean, pointer?: import("../background/placement.js").Point };

/**
 * Whether somebody looks at an answer as it comes.
 */
export type Priority = "foreground" | "background";

/**
 * A page with open requests was shown or hidden: their priority is another now. From the bridge to the offscreen document.
 */
export type PriorityChange = { 
/**
 * The new one.
 */
priority: Priority, };

/**
 * How far a message got.
 */
export type Progress = "done" | "streaming" | "stopped" | "interrupted" | "failed";

/**
 * Parameters of [`Send`].
 */
export type Question = { 
/**
 * Which conversation.
 */
id?: string, 
/**
 * The question.
 */
text: string, };

/**
 * Headers that ask for a range.
 */
export type RangeHeaders = { 
/**
 * With the host's token.
 */
Authorization: string, 
/**
 * The range.
 */
Range: string, 
/**
 * [`OpenedFile::etag`](crate::native::OpenedFile::etag).
 */
"If-Match": string, };

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
 * Detail of [`Fatal`].
 */
export type Reason = { 
/**
 * Why.
 */
message: string, };

/**
 * The reply to an [`Ask`].
 */
export type Reply<T> = { 
/**
 * [`Ask::ask`].
 */
answer: number, 
/**
 * The answer.
 */
done: T, } | { 
/**
 * [`Ask::ask`].
 */
answer: number, 
/**
 * Why.
 */
error: Failure, };

/**
 * A request. Its id rises with each.
 */
export type Request<P> = { 
/**
 * Frames of its answer have the same.
 */
id: number, 
/**
 * The method; [`CANCEL`] and [`READ`] are about the request of this id.
 */
method: string, 
/**
 * Of the method; a cancel has none.
 */
params?: P, 
/**
 * The origin that asks, as the browser attests it. The offscreen document adds it for the worker, and refuses frames that have it.
 */
origin?: string, 
/**
 * As the bridge of a page attests it, for pages and for the worker.
 */
priority?: Priority, 
/**
 * The part of the answer that came before its connection, or its worker, ended. Of the extension's own parts, never of a page's script.
 */
resume?: Resume, 
/**
 * Parts of a streamed answer that may be on their way unread: the worker waits for [`READ`] before it sends more. From the offscreen
 * document to the worker.
 */
max_unread?: number, };

/**
 * The beginning of a streamed answer, which goes on behind it.
 */
export type Resume = { 
/**
 * The chunks' `id`.
 */
id: string, 
/**
 * The chunks' `created`.
 */
created: number, 
/**
 * [`Part::model`].
 */
model: number, 
/**
 * The answer's tokens: those of all its chunks.
 */
tokens: Array<number>, 
/**
 * Whether the chunks' text is not there any more: it comes once more, as one chunk.
 */
retell: boolean, };

/**
 * The author of a message.
 */
export type Role = "user" | "assistant";

/**
 * A conversation that the worker has.
 */
export type RunningChat = { 
/**
 * The origin that asks.
 */
origin: string, 
/**
 * The model's name for people; `None`: it is not loaded yet.
 */
model: string | null, 
/**
 * Whether the engine has admitted it; else it waits. So it stays while it is preempted, or while a lost device is opened again.
 */
running: boolean, 
/**
 * Tokens of the prompt and of the answer so far, once it was admitted: those whose keys and values the cache has or will have again.
 */
tokens: number, 
/**
 * Tokens of the answer in a second, as it is now.
 */
tokens_per_second: number, };

/**
 * Answer to [`GetChats`].
 */
export type RunningChats = { 
/**
 * In the order of their arrival.
 */
chats: Array<RunningChat>, };

/**
 * The engine's `Tuning`: settings of the kernels.
 */
export type Settings = Record<string, number | boolean>;

/**
 * Parameters of [`StopSite`].
 */
export type Site = { 
/**
 * Its origin.
 */
origin: string, };

/**
 * A whole conversation, as it was after event number `seq`.
 */
export type Snapshot = { 
/**
 * Which conversation.
 */
id: string, 
/**
 * Number of the last event it includes.
 */
seq: number, 
/**
 * Oldest first.
 */
messages: Array<Message>, };

/**
 * Where a model is.
 */
export type Source = "embedded" | "host" | "picked";

/**
 * The host's version of the protocol.
 */
export type Spoken = { 
/**
 * [`PROTOCOL`].
 */
protocol: number, };

/**
 * How fast an answer came.
 */
export type Stats = { 
/**
 * Milliseconds from the request to the first token.
 */
first_token_ms?: number, 
/**
 * Speed after the first token.
 */
decode_tokens_per_second?: number, 
/**
 * Tokens of the answer.
 */
completion_tokens?: number, };

/**
 * Detail of a `storage` event.
 */
export type Storage = { 
/**
 * Why conversations cannot be stored; `None`: they are.
 */
problem: string | null, };

/**
 * A line of the list of conversations.
 */
export type Summary = { 
/**
 * Unique among conversations.
 */
id: string, 
/**
 * The beginning of its first question.
 */
title: string, 
/**
 * Milliseconds since 1970.
 */
updated: number, 
/**
 * Whether an answer is being written.
 */
busy: boolean, };

/**
 * `text` was appended to the content of the last message, and `thinking` to its thought.
 */
export type TextAdded = { 
/**
 * Which conversation.
 */
id: string, 
/**
 * Number of this event.
 */
seq: number, 
/**
 * Appended to the content.
 */
text: string, 
/**
 * Appended to the thought.
 */
thinking: string, };

/**
 * A kind of device.
 */
export type Tier = "unified" | "discrete" | "basic";

/**
 * An event.
 */
export type Told<D> = { 
/**
 * [`Event::NAME`](crate::Event::NAME).
 */
event: string, 
/**
 * [`Event::Detail`](crate::Event::Detail).
 */
detail: D, };

/**
 * How the bytes of a model of the native host come.
 */
export type Transport = "loopback" | "messages";

/**
 * A chunk of [`Tune`]: a setting that is measured now.
 */
export type Trial = { 
/**
 * The shape it is measured with.
 */
model: string, 
/**
 * Its number, from 1.
 */
trial: number, 
/**
 * The most that are tried.
 */
trials: number, 
/**
 * The settings.
 */
tuning: Settings, };

/**
 * As [`BenchParams`], with the most settings to try.
 */
export type TuneParams = Record<string, unknown>;

/**
 * Answer to [`Tune`].
 */
export type TuneReport = { 
/**
 * The device.
 */
adapter: Adapter, 
/**
 * The shape that was measured.
 */
model: string, 
/**
 * The fastest settings.
 */
tuning: Settings, 
/**
 * Measurements with the default settings.
 */
before: Array<LengthReport>, 
/**
 * Measurements with `tuning`.
 */
after: Array<LengthReport>, 
/**
 * Part of the time that it spares.
 */
gain: number, };

/**
 * Settings that were found for a device. The worker writes them as JSON, which the offscreen document keeps.
 */
export type Tuned = { 
/**
 * The settings.
 */
tuning: Settings, 
/**
 * When they were found, in milliseconds since 1970.
 */
since: number, 
/**
 * Part of the defaults' time that they spare.
 */
gain: number, 
/**
 * The shape that was measured.
 */
model: string, };

/**
 * A kind of device by what tells it from others.
 */
export type TunedDevice = { 
/**
 * Names and features.
 */
device: string, };

/**
 * Answer to [`Verify`].
 */
export type Verified = { 
/**
 * Of each prompt.
 */
results: Array<Compared>, };

/**
 * Parameters of [`Verify`].
 */
export type VerifyParams = { 
/**
 * The id of the model; `None`: the embedded one.
 */
model?: string, 
/**
 * Reference outputs.
 */
prompts: Array<Compared>, };

/**
 * Parameters of [`WriteTuning`].
 */
export type WriteTuningParams = { 
/**
 * As [`TunedDevice::device`].
 */
device: string, 
/**
 * The settings; `None`: none.
 */
text: string | null, };
