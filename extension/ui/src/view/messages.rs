//! The messages of the open conversation.

use crate::markdown;
use crate::protocol::{CONTEXT_EXCEEDED, Message, Progress, Role, Stats};
use crate::state::{Entry, State};
use crate::view::{dom, rich_text::RichText};
use wasm_bindgen::JsValue;
use web_sys::{Element, HtmlElement};

/// The list of messages.
pub(crate) struct Messages {
    root: HtmlElement,
    /// The conversation that is shown.
    chat: Option<String>,
    shown: Vec<MessageView>,
    /// The question on its way, if one is shown.
    outgoing: Option<HtmlElement>,
}

impl Messages {
    /// Shows nothing in `root`, which is empty.
    pub(crate) fn new(root: HtmlElement) -> Self {
        Self { root, chat: None, shown: Vec::new(), outgoing: None }
    }

    /// Shows the open conversation. Messages whose revision is shown already are left alone.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn render(&mut self, state: &State) -> Result<(), JsValue> {
        let (id, entries) = state.chat.as_ref().map_or((None, &[][..]), |chat| (Some(&chat.id), &chat.entries[..]));
        if self.chat.as_ref() != id {
            self.chat = id.cloned();
            self.shown.drain(..).for_each(|view| view.root.remove());
        }
        for surplus in self.shown.drain(entries.len().min(self.shown.len())..) {
            surplus.root.remove();
        }
        if let Some(outgoing) = self.outgoing.take() {
            outgoing.remove();
        }
        for (index, entry) in entries.iter().enumerate() {
            match self.shown.get_mut(index) {
                Some(view) if view.id == entry.message.id => view.update(entry)?,
                Some(view) => {
                    let new = MessageView::new(entry)?;
                    view.root.replace_with_with_node_1(&new.root)?;
                    *view = new;
                }
                None => {
                    let new = MessageView::new(entry)?;
                    self.root.append_child(&new.root)?;
                    self.shown.push(new);
                }
            }
        }
        if let Some(text) = &state.outgoing {
            let root = dom::instantiate("question")?;
            dom::find(&root, ".text")?.set_text_content(Some(text));
            root.class_list().add_1("outgoing")?;
            self.root.append_child(&root)?;
            self.outgoing = Some(root);
        }
        Ok(())
    }

    /// The source of the message that contains `element`.
    pub(crate) fn source_at(&self, element: &Element) -> Option<&str> {
        let view = self.shown.iter().find(|view| view.root.contains(Some(element)))?;
        Some(&view.source)
    }
}

/// One message.
struct MessageView {
    id: String,
    revision: u32,
    source: String,
    root: HtmlElement,
    /// Of an answer.
    answer: Option<Answer>,
}

/// The parts of an answer.
struct Answer {
    text: RichText,
    waiting: HtmlElement,
    actions: HtmlElement,
    stats: HtmlElement,
    problem: HtmlElement,
    sentence: HtmlElement,
    retry: HtmlElement,
    new_chat: HtmlElement,
}

impl MessageView {
    fn new(entry: &Entry) -> Result<Self, JsValue> {
        let message = &entry.message;
        let (root, answer) = match message.role {
            Role::User => {
                let root = dom::instantiate("question")?;
                dom::find(&root, ".text")?.set_text_content(Some(&message.content));
                (root, None)
            }
            Role::Assistant => {
                let root = dom::instantiate("answer")?;
                let answer = Answer::new(&root)?;
                (root, Some(answer))
            }
        };
        // Any other revision than the entry's, so that the update below takes place.
        let revision = entry.revision.wrapping_sub(1);
        let mut view = Self { id: message.id.clone(), revision, source: String::new(), root, answer };
        view.update(entry)?;
        Ok(view)
    }

    fn update(&mut self, entry: &Entry) -> Result<(), JsValue> {
        if self.revision == entry.revision {
            return Ok(());
        }
        self.revision = entry.revision;
        self.source.clone_from(&entry.message.content);
        match &mut self.answer {
            Some(answer) => answer.update(&entry.message),
            None => Ok(()),
        }
    }
}

impl Answer {
    fn new(root: &HtmlElement) -> Result<Self, JsValue> {
        Ok(Self {
            text: RichText::new(dom::find(root, ".text")?.into()),
            waiting: dom::find(root, ".waiting")?,
            actions: dom::find(root, ".actions")?,
            stats: dom::find(root, ".stats")?,
            problem: dom::find(root, ".problem")?,
            sentence: dom::find(root, ".sentence")?,
            retry: dom::find(root, ".retry")?,
            new_chat: dom::find(root, ".new-chat")?,
        })
    }

    fn update(&mut self, message: &Message) -> Result<(), JsValue> {
        self.text.update(markdown::parse(&message.content))?;
        let streaming = message.state == Progress::Streaming;
        dom::show(&self.waiting, streaming && message.content.is_empty());
        dom::show(&self.actions, !streaming && !message.content.is_empty());
        dom::set_text(&self.stats, &message.stats.as_ref().map(speed).unwrap_or_default());

        let problem = problem(message);
        dom::show(&self.problem, problem.is_some());
        let problem = problem.unwrap_or_default();
        dom::set_text(&self.sentence, &problem.sentence);
        dom::show(&self.retry, problem.remedy == Some(Remedy::Retry));
        dom::show(&self.new_chat, problem.remedy == Some(Remedy::NewChat));
        Ok(())
    }
}

/// What helps against a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Retry,
    NewChat,
}

/// What the user should know about an answer that is not whole.
#[derive(Debug, Default, PartialEq, Eq)]
struct Problem {
    sentence: String,
    remedy: Option<Remedy>,
}

fn problem(message: &Message) -> Option<Problem> {
    let (sentence, remedy) = match message.state {
        Progress::Done if message.finish.as_deref() == Some("length") => {
            ("The answer ends here because the conversation fills the model's context.", Some(Remedy::NewChat))
        }
        Progress::Done if message.content.trim().is_empty() => ("The model had nothing to say.", Some(Remedy::Retry)),
        Progress::Streaming | Progress::Done => return None,
        Progress::Stopped if message.content.is_empty() => ("Stopped.", Some(Remedy::Retry)),
        Progress::Stopped => ("Stopped.", None),
        Progress::Interrupted => ("The answer was cut off when the engine stopped.", Some(Remedy::Retry)),
        Progress::Failed => {
            let failure = message.error.clone().unwrap_or_default();
            let remedy = if failure.code == CONTEXT_EXCEEDED { Remedy::NewChat } else { Remedy::Retry };
            return Some(Problem { sentence: failure.sentence(), remedy: Some(remedy) });
        }
    };
    Some(Problem { sentence: sentence.to_owned(), remedy })
}

/// For example `42 tokens · 84 tokens/s · first after 120 ms`.
fn speed(stats: &Stats) -> String {
    let tokens = stats.completion_tokens.map(|tokens| match tokens {
        1 => "1 token".to_owned(),
        _ => format!("{tokens} tokens"),
    });
    let rate = stats.decode_tokens_per_second.filter(|rate| rate.is_finite() && *rate > 0.0);
    let rate = rate.map(|rate| format!("{} tokens/s", three_digits(rate)));
    let first = stats.first_token_ms.map(|ms| {
        let (value, unit) = if ms < 1000.0 { (ms, "ms") } else { (ms / 1000.0, "s") };
        format!("first after {} {unit}", three_digits(value))
    });
    [tokens, rate, first].into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// A positive number with one decimal below ten and none above. (Formatting floats would cost 20 KB of wasm.)
fn three_digits(number: f64) -> String {
    let tenths = (number * 10.0).round() as u64;
    if tenths < 100 { format!("{}.{}", tenths / 10, tenths % 10) } else { (number.round() as u64).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Failure;

    fn answer(state: Progress) -> Message {
        Message { id: "a".into(), role: Role::Assistant, content: "text".into(), state, finish: None, stats: None, error: None }
    }

    #[test]
    fn speeds() {
        let stats = |first, rate, tokens| Stats { first_token_ms: first, decode_tokens_per_second: rate, completion_tokens: tokens };
        assert_eq!(speed(&stats(Some(120.4), Some(84.3), Some(42))), "42 tokens · 84 tokens/s · first after 120 ms");
        assert_eq!(speed(&stats(Some(1234.0), Some(3.21), Some(1))), "1 token · 3.2 tokens/s · first after 1.2 s");
        assert_eq!(speed(&stats(None, Some(f64::INFINITY), None)), "");
    }

    #[test]
    fn problems_have_remedies() {
        assert_eq!(problem(&answer(Progress::Done)), None);
        assert_eq!(problem(&answer(Progress::Streaming)), None);
        let remedy = |message: &Message| problem(message).and_then(|problem| problem.remedy);
        assert_eq!(remedy(&answer(Progress::Stopped)), None);
        assert_eq!(remedy(&answer(Progress::Interrupted)), Some(Remedy::Retry));
        let mut failed = answer(Progress::Failed);
        failed.error = Some(Failure { name: "OperationError".into(), ..Failure::default() });
        assert_eq!(remedy(&failed), Some(Remedy::Retry));
        failed.error = Some(Failure {
            name: "QuotaExceededError".into(),
            message: "the prompt has 9 tokens; start a new chat".into(),
            code: CONTEXT_EXCEEDED.into(),
        });
        let sentence = problem(&failed).map(|problem| problem.sentence);
        assert_eq!(sentence.as_deref(), Some("The prompt has 9 tokens; start a new chat."));
        assert_eq!(remedy(&failed), Some(Remedy::NewChat));
        let cut = Message { finish: Some("length".into()), ..answer(Progress::Done) };
        assert_eq!(remedy(&cut), Some(Remedy::NewChat));
    }
}
