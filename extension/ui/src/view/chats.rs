//! The list of conversations: a modal dialog over the chat.

use crate::protocol::Summary;
use crate::state::State;
use crate::view::dom;
use js_sys::{Date, Object, Reflect};
use wasm_bindgen::JsValue;
use web_sys::{Element, HtmlDialogElement, HtmlElement};

/// The dialog and its list.
pub(crate) struct Chats {
    dialog: HtmlDialogElement,
    list: HtmlElement,
    empty: HtmlElement,
    shown: Vec<Summary>,
    current: Option<String>,
}

impl Chats {
    /// Takes the elements from `popup.html`.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn new() -> Result<Self, JsValue> {
        Ok(Self {
            dialog: dom::by_id("chats")?,
            list: dom::by_id("chat-list")?,
            empty: dom::by_id("no-chats")?,
            shown: Vec::new(),
            current: None,
        })
    }

    /// Whether the dialog is open.
    pub(crate) fn is_open(&self) -> bool {
        self.dialog.open()
    }

    /// Opens the dialog.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn open(&mut self, state: &State) -> Result<(), JsValue> {
        if !self.dialog.open() {
            self.dialog.show_modal()?;
        }
        self.render(state)?;
        for first in [".open[aria-current]", ".open"] {
            if let Ok(item) = dom::find(&self.dialog, first) {
                return item.focus();
            }
        }
        Ok(())
    }

    /// Closes the dialog; the focus goes back to where it was.
    pub(crate) fn close(&self) {
        self.dialog.close();
    }

    /// Shows the list, if the dialog is open.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn render(&mut self, state: &State) -> Result<(), JsValue> {
        let current = state.chat.as_ref().map(|chat| chat.id.clone());
        if !self.dialog.open() || (self.shown == state.chats && self.current == current) {
            return Ok(());
        }
        let focused = self.focused()?;
        self.list.replace_children_with_node_0();
        for chat in &state.chats {
            let item = item(chat, current.as_ref() == Some(&chat.id))?;
            self.list.append_child(&item)?;
        }
        // The focus stays at its place in the list, or goes to the first button when the list is empty.
        if let Some(index) = focused {
            let place = index.min(state.chats.len().saturating_sub(1)) + 1;
            let item = format!("#chat-list li:nth-child({place}) .open");
            dom::find(&self.dialog, &item).or_else(|_| dom::find(&self.dialog, "button"))?.focus()?;
        }
        dom::show(&self.empty, state.chats.is_empty());
        self.shown.clone_from(&state.chats);
        self.current = current;
        Ok(())
    }

    /// Number of the item that has the focus.
    fn focused(&self) -> Result<Option<usize>, JsValue> {
        let Some(active) = dom::document()?.active_element() else {
            return Ok(None);
        };
        let items = self.list.children();
        Ok((0..items.length())
            .find(|&index| items.item(index).is_some_and(|item| item.contains(Some(&active))))
            .map(|index| index as usize))
    }
}

/// Whether the user means it: the first press of a delete button only asks.
///
/// # Errors
/// Those of the DOM; none is expected.
pub(crate) fn is_confirmed(button: &Element) -> Result<bool, JsValue> {
    if button.class_list().contains("armed") {
        return Ok(true);
    }
    button.class_list().add_1("armed")?;
    let title = button.get_attribute("data-title").unwrap_or_default();
    button.set_attribute("aria-label", &format!("Press again to delete {title}"))?;
    dom::set_text(&*dom::find(button, ".label")?, "Delete?");
    Ok(false)
}

/// The user turned away from a delete button.
///
/// # Errors
/// Those of the DOM; none is expected.
pub(crate) fn disarm(button: &Element) -> Result<(), JsValue> {
    button.class_list().remove_1("armed")?;
    label(button)?;
    dom::set_text(&*dom::find(button, ".label")?, "");
    Ok(())
}

fn label(button: &Element) -> Result<(), JsValue> {
    let title = button.get_attribute("data-title").unwrap_or_default();
    button.set_attribute("aria-label", &format!("Delete {title}"))
}

fn item(chat: &Summary, current: bool) -> Result<HtmlElement, JsValue> {
    let item = dom::instantiate("chat-item")?;
    let open = dom::find(&item, ".open")?;
    open.set_attribute("data-id", &chat.id)?;
    if current {
        open.set_attribute("aria-current", "true")?;
    }
    dom::set_text(&*dom::find(&item, ".title")?, &chat.title);
    dom::set_text(&*dom::find(&item, ".time")?, &if chat.busy { "answering…".to_owned() } else { time(chat.updated) });
    let delete = dom::find(&item, ".delete")?;
    delete.set_attribute("data-id", &chat.id)?;
    delete.set_attribute("data-title", &chat.title)?;
    label(&delete)?;
    Ok(item)
}

/// The time of a moment today, else its date, as the user's language writes them.
fn time(milliseconds: f64) -> String {
    let moment = Date::new(&JsValue::from_f64(milliseconds));
    let options = Object::new();
    let set = |key: &str, value: &str| drop(Reflect::set(&options, &key.into(), &value.into()));
    if moment.to_date_string() == Date::new_0().to_date_string() {
        set("timeStyle", "short");
        return moment.to_locale_time_string_with_options("default", &options).into();
    }
    set("dateStyle", "medium");
    moment.to_locale_date_string("default", &options).into()
}
