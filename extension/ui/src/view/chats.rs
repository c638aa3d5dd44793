//! The list of conversations: a modal dialog over the chat.

use crate::state::State;
use crate::view::dom;
use doppler_protocol::conversations::Summary;
use js_sys::{Array, Date, Function, Intl, Object, Reflect};
use std::cell::OnceCell;
use wasm_bindgen::JsValue;
use web_sys::{Element, HtmlDialogElement, HtmlElement};

/// Items built at once: more than fit the window. The next follow when the reader comes near their end.
const ITEMS: usize = 60;
/// Pixels from the end of the list at which the next are built.
const NEAR_END: i32 = 600;

/// The dialog and its list.
pub(crate) struct Chats {
    dialog: HtmlDialogElement,
    list: HtmlElement,
    empty: HtmlElement,
    shown: Vec<Summary>,
    current: Option<String>,
    /// How many items there may be.
    built: usize,
    /// Made when they are needed.
    times: OnceCell<Times>,
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
            built: ITEMS,
            times: OnceCell::new(),
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
            self.built = ITEMS;
            self.shown.clear();
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
        self.current = current;
        self.shown.clone_from(&state.chats);
        self.append(0)?;
        // The focus stays at its place in the list, or goes to the first button when the list is empty.
        if let Some(index) = focused {
            let place = index.min(state.chats.len().saturating_sub(1)) + 1;
            let item = format!("#chat-list li:nth-child({place}) .open");
            dom::find(&self.dialog, &item).or_else(|_| dom::find(&self.dialog, "button"))?.focus()?;
        }
        dom::show(&self.empty, state.chats.is_empty());
        Ok(())
    }

    /// Builds the next items if the reader comes near the end of those that there are.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn scrolled(&mut self) -> Result<(), JsValue> {
        let list = &self.list;
        let near = list.scroll_top() + list.client_height() + NEAR_END >= list.scroll_height();
        if !near || self.built >= self.shown.len() {
            return Ok(());
        }
        let first = self.built;
        self.built += ITEMS;
        self.append(first)
    }

    /// Builds the items from number `first` on.
    fn append(&self, first: usize) -> Result<(), JsValue> {
        let times = self.times.get_or_init(Times::new);
        let today = Date::new_0().to_date_string();
        for chat in self.shown.iter().take(self.built).skip(first) {
            let time = if chat.busy { "answering…".to_owned() } else { times.write(chat.updated, &today) };
            self.list.append_child(&*item(chat, self.current.as_ref() == Some(&chat.id), &time)?)?;
        }
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

/// The user left a delete button.
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

fn item(chat: &Summary, current: bool, time: &str) -> Result<HtmlElement, JsValue> {
    let item = dom::instantiate("chat-item")?;
    let open = dom::find(&item, ".open")?;
    open.set_attribute("data-id", &chat.id)?;
    if current {
        open.set_attribute("aria-current", "true")?;
    }
    dom::set_text(&*dom::find(&item, ".title")?, &chat.title);
    dom::set_text(&*dom::find(&item, ".time")?, time);
    let delete = dom::find(&item, ".delete")?;
    delete.set_attribute("data-id", &chat.id)?;
    delete.set_attribute("data-title", &chat.title)?;
    label(&delete)?;
    Ok(item)
}

/// Writes moments as the user's language does. The browser takes long to make one of these.
struct Times {
    time: Function,
    date: Function,
}

impl Times {
    fn new() -> Self {
        let format = |style: &str, length: &str| {
            let options = Object::new();
            // Setting a property of a new object cannot fail.
            let _ = Reflect::set(&options, &style.into(), &length.into());
            Intl::DateTimeFormat::new(&Array::new(), &options).format()
        };
        Self { time: format("timeStyle", "short"), date: format("dateStyle", "medium") }
    }

    /// The time of a moment today, else its date.
    fn write(&self, milliseconds: f64, today: &js_sys::JsString) -> String {
        let moment = Date::new(&JsValue::from_f64(milliseconds));
        let format = if moment.to_date_string() == *today { &self.time } else { &self.date };
        format.call1(&JsValue::NULL, &moment).ok().and_then(|text| text.as_string()).unwrap_or_default()
    }
}
