//! The popup's elements, and how they follow the [`State`].

pub(crate) mod chats;
pub(crate) mod dom;
mod messages;
pub(crate) mod models;
mod rich_text;
mod status;

use crate::state::State;
use chats::Chats;
use doppler_protocol::error::Failure;
use messages::Messages;
use models::Models;
use status::Status;
use wasm_bindgen::JsValue;
use web_sys::{Element, HtmlElement, HtmlTextAreaElement};

/// Pixels from the end of the conversation within which the reader is taken to follow it.
const NEAR_END: i32 = 32;
/// Sentences kept for a screen reader: it reads what is added, and a user who browses finds no second transcript.
const ANNOUNCEMENTS: u32 = 4;

/// The popup.
pub(crate) struct View {
    pub(crate) chats: Chats,
    pub(crate) models: Models,
    pub(crate) input: HtmlTextAreaElement,
    messages: Messages,
    status: Status,
    scroller: HtmlElement,
    welcome: HtmlElement,
    welcome_title: HtmlElement,
    about_spark: HtmlElement,
    spark_examples: HtmlElement,
    examples: HtmlElement,
    to_end: HtmlElement,
    alert: HtmlElement,
    alert_text: HtmlElement,
    alert_help: HtmlElement,
    announcer: HtmlElement,
    send: HtmlElement,
    stop: HtmlElement,
    /// Whether the end of the conversation stays in sight while it grows.
    following: bool,
}

impl View {
    /// Takes the elements from `popup.html`.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn new() -> Result<Self, JsValue> {
        Ok(Self {
            chats: Chats::new()?,
            models: Models::new()?,
            input: dom::by_id("input")?,
            messages: Messages::new(dom::by_id("messages")?),
            status: Status::new()?,
            scroller: dom::by_id("scroller")?,
            welcome: dom::by_id("welcome")?,
            welcome_title: dom::by_id("welcome-title")?,
            about_spark: dom::by_id("about-spark")?,
            spark_examples: dom::by_id("spark-examples")?,
            examples: dom::by_id("examples")?,
            to_end: dom::by_id("to-end")?,
            alert: dom::by_id("alert")?,
            alert_text: dom::by_id("alert-text")?,
            alert_help: dom::by_id("alert-help")?,
            announcer: dom::by_id("announcer")?,
            send: dom::by_id("send")?,
            stop: dom::by_id("stop")?,
            following: true,
        })
    }

    /// Shows `state`.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn render(&mut self, state: &State) -> Result<(), JsValue> {
        self.status.render(state);
        self.messages.render(state)?;
        self.chats.render(state)?;
        self.models.render(state)?;
        let empty = state.chat.is_none() && state.outgoing.is_none();
        dom::show(&self.welcome, empty && state.restored);
        dom::set_text(&self.welcome_title, if state.models.local { "Ask your model" } else { "Ask Spark" });
        dom::show(&self.about_spark, !state.models.local);
        dom::show(&self.spark_examples, !state.models.local);
        dom::show(&self.examples, state.models.local);
        // The list of models, which is over it, and the answer say the same where they say it.
        let told = |failure: &Failure| state.last_failure().is_some_and(|last| last.sentence() == failure.sentence());
        let problem = state.problem().filter(|failure| !self.models.is_open() && !told(failure));
        dom::show(&self.alert, problem.is_some());
        dom::set_text(&self.alert_text, &problem.map(Failure::sentence).unwrap_or_default());
        dom::show(&self.alert_help, problem.is_some_and(Failure::is_no_gpu));
        let busy = state.busy();
        // The button that had the focus must not take it away with it.
        if busy == self.stop.hidden() {
            let had_focus = dom::document()?.active_element().is_some_and(|active| {
                let active: &web_sys::Node = &active;
                self.stop.is_same_node(Some(active)) || self.send.is_same_node(Some(active))
            });
            dom::show(&self.stop, busy);
            dom::show(&self.send, !busy);
            if had_focus {
                self.input.focus()?;
            }
        }
        if empty {
            self.following = true;
        } else if self.following {
            self.scroller.set_scroll_top(self.scroller.scroll_height());
        }
        dom::show(&self.to_end, !self.following);
        Ok(())
    }

    /// Notes where the reader scrolled to.
    pub(crate) fn scrolled(&mut self) {
        let scroller = &self.scroller;
        self.following = scroller.scroll_top() + scroller.client_height() + NEAR_END >= scroller.scroll_height();
        dom::show(&self.to_end, !self.following);
    }

    /// Keeps the end of the conversation in sight from the next rendering on.
    pub(crate) fn follow(&mut self) {
        self.following = true;
    }

    /// Lets a screen reader say `text`.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn announce(&self, text: &str) -> Result<(), JsValue> {
        let line = dom::create("p")?;
        line.set_text_content(Some(text));
        self.announcer.append_child(&line)?;
        while self.announcer.child_element_count() > ANNOUNCEMENTS {
            self.announcer.first_element_child().iter().for_each(Element::remove);
        }
        Ok(())
    }

    /// The Markdown of the answer that contains `element`, or the code of the block that does.
    pub(crate) fn text_to_copy(&self, element: &Element) -> Option<String> {
        match element.closest("figure") {
            Ok(Some(block)) => dom::find(&block, "code").ok()?.text_content(),
            _ => self.messages.source_at(element).map(str::to_owned),
        }
    }
}
