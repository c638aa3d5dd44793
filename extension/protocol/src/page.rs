//! Requests of web pages to the offscreen document, through the shim and the bridge of `extension/page`; and its events. The types of the
//! page API are in `extension/page/doppler.d.ts`.

use crate::engine::{self, Completion, Count};
use crate::{Nothing, elsewhere, events, methods};

methods! {
    /// The page's permission.
    QueryPermission = "permissions.query": Nothing => Permission;
    /// Asks the user. The parameters are the bridge's.
    RequestPermission = "permissions.request": Press => Permission;
    /// Gives the page's grant up.
    RevokePermission = "permissions.revoke": Nothing => Permission;
    /// The model that answers.
    ListModels = "models.list": Nothing => PageCatalog;
    /// As [`engine::Chat`].
    Chat = "chat.completions": engine::ChatRequest => Completion, chunk engine::Chunk;
    /// As [`engine::CountTokens`].
    CountTokens = "tokens.count": engine::ChatRequest => Count, chunk engine::Loaded;
}

events! {
    /// The page's permission changed.
    PermissionChanged = "permissionchange": Permission;
    /// Another model answers.
    ModelChanged = "modelchange": PageModel;
    /// The engine is gone; with a message for good. The bridge says so.
    Disconnected = "disconnect": Disconnection;
}

elsewhere! {
    /// The state of a page's permission.
    Permission = "{ state: import(\"../page/doppler.js\").PermissionState }";
    /// Whether the user has just pressed something, and where on the screen.
    Press = "{ activated: boolean, pointer?: import(\"../background/placement.js\").Point }";
    /// `OpenAI`'s list of models, with the one that answers.
    PageCatalog = "{ object: \"list\", data: import(\"../page/doppler.js\").Model[] }";
    /// The name that pages know the model by.
    PageModel = "{ model: string }";
    /// With a message that says what the user can do.
    Disconnection = "{ message?: string }";
}
