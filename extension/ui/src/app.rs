//! Ties the state to the view, the user's input and the connection.

use crate::call::Call;
use crate::engine::{self, EnginePort};
use crate::files::{self, Files};
use crate::state::{Effect, ModelMsg, Msg, State};
use crate::view::{View, chats, dom};
use js_sys::{Function, Promise};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{AddEventListenerOptions, Element, Event, EventTarget, KeyboardEvent};

/// Where an unsent question is kept while the popup is closed.
const DRAFT: &str = "draft";
/// The page's fragment with which it shows the list of models at once.
const MODELS: &str = "#models";
/// How long a button says that it copied, in milliseconds.
const COPIED: i32 = 1500;
/// Pause before connecting again, in milliseconds, at first and at most.
const PAUSES: (i32, i32) = (200, 5000);

/// The running popup.
pub(crate) struct App {
    state: RefCell<State>,
    view: RefCell<View>,
    port: RefCell<Option<Rc<EnginePort>>>,
    files: Files,
    /// Calls that wait for a connection.
    queue: RefCell<Vec<Call>>,
    /// Draws the state; set once, by [`App::start`].
    draw: OnceCell<Closure<dyn FnMut()>>,
    /// Whether `draw` will run before the next frame.
    scheduled: Cell<bool>,
}

impl App {
    /// Starts the popup: its elements are live when this returns, and the connection is on its way.
    ///
    /// # Errors
    /// When `popup.html` lacks an element.
    pub(crate) fn start(connect_engine: Function, files: Files) -> Result<(), JsValue> {
        let app = Rc::new(Self {
            state: RefCell::default(),
            view: RefCell::new(View::new()?),
            port: RefCell::default(),
            files,
            queue: RefCell::default(),
            draw: OnceCell::new(),
            scheduled: Cell::new(false),
        });
        let drawing = Rc::downgrade(&app);
        let draw = Closure::new(move || {
            if let Some(app) = drawing.upgrade() {
                app.scheduled.set(false);
                report(app.view.borrow_mut().render(&app.state.borrow()));
            }
        });
        // The cell is empty: this is its only assignment.
        let _ = app.draw.set(draw);
        app.listen()?;
        app.restore_draft();
        if dom::window()?.location().hash()? == MODELS {
            app.perform(Effect::ShowModels)?;
        }
        spawn_local(app.stay_connected(connect_engine));
        Ok(())
    }

    /// Applies `msg`, carries out its effects, and draws before the next frame.
    fn dispatch(self: &Rc<Self>, msg: Msg) {
        let effects = self.state.borrow_mut().update(msg);
        for effect in effects {
            report(self.perform(effect));
        }
        self.schedule();
    }

    fn schedule(&self) {
        let Some(draw) = self.draw.get() else { return };
        if !self.scheduled.replace(true) {
            report(dom::window().and_then(|window| window.request_animation_frame(draw.as_ref().unchecked_ref())));
        }
    }

    fn perform(self: &Rc<Self>, effect: Effect) -> Result<(), JsValue> {
        match effect {
            Effect::Call(call) => self.call(call),
            Effect::Announce(text) => self.view.borrow().announce(&text)?,
            Effect::Restore(text) => {
                let input = &self.view.borrow().input;
                if input.value().is_empty() {
                    input.set_value(&text);
                }
                self.keep_draft();
            }
            Effect::Focus => self.view.borrow().input.focus()?,
            Effect::Permit(id) => {
                let permission = self.files.permit(&id);
                let app = Rc::clone(self);
                spawn_local(async move {
                    let permitted = JsFuture::from(permission).await.is_ok_and(|permitted| permitted.is_truthy());
                    app.dispatch(Msg::Models(ModelMsg::Permitted(id, permitted)));
                });
            }
            Effect::ShowModels => {
                self.view.borrow().models.open()?;
                self.dispatch(Msg::Models(ModelMsg::Open));
            }
            Effect::CloseModels => self.view.borrow().models.close(),
            Effect::ShowEnd => self.view.borrow_mut().follow(),
        }
        Ok(())
    }

    fn call(self: &Rc<Self>, call: Call) {
        let Some(port) = self.port.borrow().clone() else {
            self.queue.borrow_mut().push(call);
            return;
        };
        let app = Rc::clone(self);
        spawn_local(async move {
            if let Some(msg) = engine::ask(&port, call).await {
                app.dispatch(msg);
            }
        });
    }

    /// Connects, and connects again whenever the offscreen document goes away.
    async fn stay_connected(self: Rc<Self>, connect_engine: Function) {
        let (first, longest) = PAUSES;
        let mut pause = first;
        loop {
            let app = Rc::clone(&self);
            match engine::connect(&connect_engine, Rc::new(move |msg| app.dispatch(msg))).await {
                Ok(connection) => {
                    pause = first;
                    self.port.replace(Some(Rc::clone(&connection.port)));
                    self.dispatch(Msg::Connected);
                    let waiting = self.queue.take();
                    for call in waiting {
                        self.call(call);
                    }
                    // The promise has no way to reject.
                    let _ = JsFuture::from(connection.closed).await;
                    self.port.replace(None);
                    self.dispatch(Msg::Disconnected);
                }
                Err(failure) => {
                    for call in self.queue.take() {
                        self.dispatch(Msg::Failed(call, failure.clone()));
                    }
                    self.dispatch(Msg::Unreachable(failure));
                }
            }
            sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    fn listen(self: &Rc<Self>) -> Result<(), JsValue> {
        let document = dom::document()?;
        self.on(&document, "click", |app, event| {
            let target = event.target().and_then(|target| target.dyn_into::<Element>().ok());
            match target.map(|target| target.closest("[data-action]")) {
                Some(Ok(Some(element))) => app.act(&element),
                _ => Ok(()),
            }
        })?;
        self.on(&document, "keydown", |app, event| {
            app.key(event.unchecked_ref());
            Ok(())
        })?;
        self.on(&document, "focusout", |_, event| {
            let target = event.target().and_then(|target| target.dyn_into::<Element>().ok());
            target.filter(|target| target.class_list().contains("armed")).map_or(Ok(()), |armed| chats::disarm(&armed))
        })?;
        let app = Rc::clone(self);
        self.files.watch_drops(&Closure::<dyn Fn(Promise)>::new(move |models| app.picked(models)).into_js_value());
        // However it was closed.
        self.on(&*dom::by_id::<Element>("models")?, "close", |app, _| {
            app.dispatch(Msg::Models(ModelMsg::Close));
            Ok(())
        })?;
        self.on(&*dom::by_id::<Element>("chat-list")?, "scroll", |app, _| app.view.borrow_mut().chats.scrolled())?;
        self.on(&self.view.borrow().input, "input", |app, _| {
            app.keep_draft();
            app.dispatch(Msg::Typing);
            Ok(())
        })?;
        self.on(&*dom::by_id::<Element>("composer")?, "submit", |app, event| {
            event.prevent_default();
            app.submit();
            Ok(())
        })?;
        self.on(&*dom::by_id::<Element>("scroller")?, "scroll", |app, _| {
            app.view.borrow_mut().scrolled();
            Ok(())
        })
    }

    /// Listens for as long as the popup lives.
    fn on(self: &Rc<Self>, target: &EventTarget, event: &str, handle: fn(&Rc<Self>, &Event) -> Result<(), JsValue>) -> Result<(), JsValue> {
        let app = Rc::clone(self);
        let listener = Closure::<dyn Fn(Event)>::new(move |event| report(handle(&app, &event)));
        let options = AddEventListenerOptions::new();
        options.set_passive(event == "scroll");
        let function = listener.into_js_value();
        target.add_event_listener_with_callback_and_add_event_listener_options(event, function.unchecked_ref(), &options)
    }

    /// Does what the button `element` is for.
    fn act(self: &Rc<Self>, element: &Element) -> Result<(), JsValue> {
        let id = || element.get_attribute("data-id").unwrap_or_default();
        match element.get_attribute("data-action").as_deref() {
            Some("new") => {
                self.view.borrow().chats.close();
                self.dispatch(Msg::NewChat);
            }
            Some("stop-sites") => self.dispatch(Msg::StopSites),
            Some("stop") => self.dispatch(Msg::Stop),
            Some("regenerate") => self.dispatch(Msg::Regenerate),
            Some("example") => self.dispatch(Msg::Submit(element.text_content().unwrap_or_default().trim().to_owned())),
            Some("copy") => self.copy(element),
            Some("list") => self.view.borrow_mut().chats.open(&self.state.borrow())?,
            Some("close-list") => self.view.borrow().chats.close(),
            Some("open") => {
                self.view.borrow().chats.close();
                self.dispatch(Msg::Open(id()));
            }
            Some("delete") if chats::is_confirmed(element)? => self.dispatch(Msg::Delete(id())),
            Some("models") => self.perform(Effect::ShowModels)?,
            Some("close-models") => self.perform(Effect::CloseModels)?,
            Some("choose") => self.dispatch(Msg::Models(ModelMsg::Choose(id()))),
            Some("load-with") => {
                if let Some(context) = element.get_attribute("data-context").and_then(|context| context.parse().ok()) {
                    self.dispatch(Msg::Models(ModelMsg::ChooseWith(id(), context)));
                }
            }
            Some("unfold") => {
                let folded = element.closest(".question")?.is_some_and(|question| !question.class_list().toggle("folded").unwrap_or(true));
                element.set_attribute("aria-expanded", if folded { "true" } else { "false" })?;
                dom::set_text(element, if folded { "Show less" } else { "Show all" });
            }
            Some("forget") => self.dispatch(Msg::Models(ModelMsg::Forget(id()))),
            Some("pick-files") => self.picked(self.files.pick("files")),
            Some("pick-folder") => self.picked(self.files.pick("folder")),
            Some("dismiss") => self.dispatch(Msg::Dismiss),
            Some("to-end") => {
                self.view.borrow_mut().follow();
                self.schedule();
            }
            _ => {}
        }
        Ok(())
    }

    fn key(self: &Rc<Self>, event: &KeyboardEvent) {
        // Enter and Escape belong to the input method while it composes.
        if event.is_composing() {
            return;
        }
        let in_input = event.target().as_deref() == Some(self.view.borrow().input.as_ref());
        match event.key().as_str() {
            "Enter" if in_input && !event.shift_key() => {
                event.prevent_default();
                self.submit();
            }
            // The browser closes the list of models by itself.
            "Escape" if self.view.borrow().models.is_open() => {}
            "Escape" if self.view.borrow().chats.is_open() => {
                event.prevent_default();
                self.view.borrow().chats.close();
            }
            // Otherwise Escape closes the popup, as the browser has it.
            "Escape" if self.state.borrow().busy() => {
                event.prevent_default();
                self.dispatch(Msg::Stop);
            }
            "o" | "O" if event.shift_key() && (event.ctrl_key() || event.meta_key()) => {
                event.prevent_default();
                self.view.borrow().chats.close();
                self.dispatch(Msg::NewChat);
            }
            _ => {}
        }
    }

    /// Takes the models that the user picked or dropped.
    fn picked(self: &Rc<Self>, models: Promise) {
        let app = Rc::clone(self);
        spawn_local(async move {
            app.dispatch(match JsFuture::from(models).await {
                Ok(ids) => Msg::Models(ModelMsg::Picked(files::texts(&ids))),
                Err(rejection) => Msg::Refused(engine::failure(rejection)),
            });
        });
    }

    fn submit(self: &Rc<Self>) {
        let text = self.view.borrow().input.value();
        if text.trim().is_empty() || self.state.borrow().busy() {
            return;
        }
        self.view.borrow().input.set_value("");
        self.keep_draft();
        self.dispatch(Msg::Submit(text));
    }

    /// Copies what `button` stands next to, and says so on the button.
    fn copy(self: &Rc<Self>, button: &Element) {
        let Some(text) = self.view.borrow().text_to_copy(button) else {
            return;
        };
        let (app, button) = (Rc::clone(self), button.clone());
        spawn_local(async move {
            let Ok(window) = dom::window() else { return };
            let written = JsFuture::from(window.navigator().clipboard().write_text(&text)).await;
            let (class, word) = if written.is_ok() { ("copied", "Copied") } else { ("refused", "Copying failed") };
            report(app.view.borrow().announce(word));
            report(button.class_list().add_1(class));
            sleep(COPIED).await;
            report(button.class_list().remove_1(class));
        });
    }

    fn keep_draft(&self) {
        if let Some(storage) = storage() {
            // A full storage costs the draft only.
            let _ = storage.set_item(DRAFT, &self.view.borrow().input.value());
        }
    }

    /// Puts back what was typed before the popup closed, unless more was typed while the popup was loading.
    fn restore_draft(&self) {
        let draft = storage().and_then(|storage| storage.get_item(DRAFT).ok().flatten());
        let input = &self.view.borrow().input;
        if let Some(draft) = draft.filter(|_| input.value().is_empty()) {
            input.set_value(&draft);
        }
    }
}

fn storage() -> Option<web_sys::Storage> {
    dom::window().ok()?.local_storage().ok().flatten()
}

async fn sleep(milliseconds: i32) {
    let timer = Promise::new(&mut |resolve, _| {
        report(dom::window().and_then(|window| window.set_timeout_with_callback_and_timeout_and_arguments_0(&resolve, milliseconds)));
    });
    // The promise has no way to reject.
    let _ = JsFuture::from(timer).await;
}

/// Notes an error that has no place on the screen.
fn report<T>(result: Result<T, JsValue>) {
    if let Err(error) = result {
        web_sys::console::error_1(&error);
    }
}
