//! The messages of the open conversation.

use crate::state::{Entry, State};
use crate::view::{dom, rich_text::RichText};
use doppler_protocol::conversations::{Message, Progress, Role, Stats};
use doppler_protocol::error::{CONTEXT_EXCEEDED, Failure};
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
                Some(view) if view.id == entry.message.id => view.update(entry, state)?,
                Some(view) => {
                    let new = MessageView::new(entry, state)?;
                    view.root.replace_with_with_node_1(&new.root)?;
                    *view = new;
                }
                None => {
                    let new = MessageView::new(entry, state)?;
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
    thought: HtmlElement,
    thought_title: HtmlElement,
    thinking: RichText,
    /// Bytes of the thought that are shown.
    thought_length: usize,
    waiting: HtmlElement,
    actions: HtmlElement,
    stats: HtmlElement,
    problem: HtmlElement,
    sentence: HtmlElement,
    retry: HtmlElement,
    new_chat: HtmlElement,
    load_with: HtmlElement,
    help: HtmlElement,
}

impl MessageView {
    fn new(entry: &Entry, state: &State) -> Result<Self, JsValue> {
        let message = &entry.message;
        let (root, answer) = match message.role {
            Role::User => {
                let root = dom::instantiate("question")?;
                dom::find(&root, ".text")?.set_text_content(Some(&message.content));
                let long = is_long(&message.content);
                dom::show(&dom::find(&root, ".unfold")?, long);
                root.class_list().toggle_with_force("folded", long)?;
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
        view.update(entry, state)?;
        Ok(view)
    }

    fn update(&mut self, entry: &Entry, state: &State) -> Result<(), JsValue> {
        if self.revision != entry.revision {
            self.revision = entry.revision;
            self.show(&entry.message)?;
        }
        // The remedy of a failure depends on more than the message.
        match (&self.answer, &entry.message.error) {
            (Some(answer), Some(failure)) => dom::offer_context(&answer.load_with, state.fitting(failure)),
            _ => Ok(()),
        }
    }

    fn show(&mut self, message: &Message) -> Result<(), JsValue> {
        let added = message.content.strip_prefix(self.source.as_str());
        let other = added.is_none();
        match added {
            Some(added) => self.source.push_str(added),
            None => self.source.clone_from(&message.content),
        }
        match &mut self.answer {
            Some(answer) => answer.update(message, other),
            None => Ok(()),
        }
    }
}

/// Whether a question is shown folded: it would push its answer out of sight.
fn is_long(question: &str) -> bool {
    question.len() > 1500 || question.lines().nth(14).is_some()
}

impl Answer {
    fn new(root: &HtmlElement) -> Result<Self, JsValue> {
        Ok(Self {
            text: RichText::new(dom::find(root, ".text")?.into()),
            thought: dom::find(root, ".thought")?,
            thought_title: dom::find(root, ".thought summary")?,
            thinking: RichText::new(dom::find(root, ".thinking")?.into()),
            thought_length: 0,
            waiting: dom::find(root, ".waiting")?,
            actions: dom::find(root, ".actions")?,
            stats: dom::find(root, ".stats")?,
            problem: dom::find(root, ".problem")?,
            sentence: dom::find(root, ".sentence")?,
            retry: dom::find(root, ".retry")?,
            new_chat: dom::find(root, ".new-chat")?,
            load_with: dom::find(root, ".load-with")?,
            help: dom::find(root, ".help")?,
        })
    }

    fn update(&mut self, message: &Message, other: bool) -> Result<(), JsValue> {
        let streaming = message.state == Progress::Streaming;
        self.text.update(&message.content, other, !streaming)?;
        self.think(message, streaming)?;
        dom::show(&self.waiting, streaming && message.content.is_empty() && message.thinking.is_empty());
        dom::show(&self.actions, !streaming && !message.content.is_empty());
        dom::set_text(&self.stats, &message.stats.as_ref().map(speed).unwrap_or_default());

        let problem = problem(message);
        dom::show(&self.problem, problem.is_some());
        let problem = problem.unwrap_or_default();
        dom::set_text(&self.sentence, &problem.sentence);
        self.problem.class_list().toggle_with_force("failed", matches!(message.state, Progress::Failed | Progress::Interrupted))?;
        dom::show(&self.retry, problem.remedy == Some(Remedy::Retry));
        dom::show(&self.new_chat, problem.remedy == Some(Remedy::NewChat));
        dom::show(&self.load_with, false);
        dom::show(&self.help, message.error.as_ref().is_some_and(Failure::is_no_gpu));
        Ok(())
    }

    /// Shows what the model thinks: open while it thinks, then folded.
    fn think(&mut self, message: &Message, streaming: bool) -> Result<(), JsValue> {
        let thinking = streaming && message.thinking_ms.is_none() && message.content.is_empty();
        let began = self.thought.hidden() && !message.thinking.is_empty();
        let ended = !thinking && self.thought_title.has_attribute("data-thinking");
        dom::show(&self.thought, !message.thinking.is_empty());
        dom::set_text(&self.thought_title, &thought_title(thinking, message.thinking_ms));
        self.thought_title.toggle_attribute_with_force("data-thinking", thinking)?;
        if (began && thinking) || ended {
            self.thought.toggle_attribute_with_force("open", thinking)?;
        }
        let other = message.thinking.len() < self.thought_length;
        if began || other || message.thinking.len() > self.thought_length || ended {
            self.thought_length = message.thinking.len();
            self.thinking.update(&message.thinking, other, !thinking)?;
        }
        Ok(())
    }
}

/// For example `Thought for 12 s`.
fn thought_title(thinking: bool, milliseconds: Option<f64>) -> String {
    match milliseconds.map(|milliseconds| (milliseconds / 1000.0).round() as u64) {
        _ if thinking => "Thinking…".to_owned(),
        None => "Thought".to_owned(),
        Some(0) => "Thought for less than a second".to_owned(),
        Some(seconds) if seconds < 60 => format!("Thought for {seconds} s"),
        Some(seconds) => format!("Thought for {} min {} s", seconds / 60, seconds % 60),
    }
}

/// A remedy for a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Retry,
    NewChat,
}

/// A note about an answer that is not whole.
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
    let first = stats.first_token_ms.map(|ms| match ms {
        ..1.0 => "first in less than 1 ms".to_owned(),
        ..1000.0 => format!("first after {} ms", three_digits(ms)),
        _ => format!("first after {} s", three_digits(ms / 1000.0)),
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

    fn answer(state: Progress) -> Message {
        let (id, content) = ("a".into(), "text".into());
        let (thinking, thinking_ms) = (String::new(), None);
        Message { id, role: Role::Assistant, content, thinking, thinking_ms, state, finish: None, stats: None, error: None }
    }

    #[test]
    fn speed_line_formats_numbers() {
        let stats = |first, rate, tokens| Stats { first_token_ms: first, decode_tokens_per_second: rate, completion_tokens: tokens };
        assert_eq!(speed(&stats(Some(120.4), Some(84.3), Some(42))), "42 tokens · 84 tokens/s · first after 120 ms");
        assert_eq!(speed(&stats(Some(1234.0), Some(3.21), Some(1))), "1 token · 3.2 tokens/s · first after 1.2 s");
        assert_eq!(speed(&stats(None, Some(f64::INFINITY), None)), "");
        assert_eq!(speed(&stats(Some(0.0), None, None)), "first in less than 1 ms");
    }

    #[test]
    fn thought_titles_state_duration() {
        assert_eq!(thought_title(true, None), "Thinking…");
        assert_eq!(thought_title(false, Some(12_400.0)), "Thought for 12 s");
        assert_eq!(thought_title(false, Some(90_000.0)), "Thought for 1 min 30 s");
        assert_eq!(thought_title(false, Some(20.0)), "Thought for less than a second");
        assert_eq!(thought_title(false, None), "Thought");
    }

    #[test]
    fn long_questions_are_folded() {
        assert!(!is_long("a\nb"));
        assert!(is_long(&"line\n".repeat(200)));
        assert!(is_long(&"word ".repeat(400)));
    }

    #[test]
    fn message_problems_offer_remedies() {
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
            ..Failure::default()
        });
        let sentence = problem(&failed).map(|problem| problem.sentence);
        assert_eq!(sentence.as_deref(), Some("The prompt has 9 tokens; start a new chat."));
        assert_eq!(remedy(&failed), Some(Remedy::NewChat));
        let cut = Message { finish: Some("length".into()), ..answer(Progress::Done) };
        assert_eq!(remedy(&cut), Some(Remedy::NewChat));
    }
}
