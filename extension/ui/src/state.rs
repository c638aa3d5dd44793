//! Everything the popup shows, and how it changes: a pure function of messages, with effects as data.

use crate::call::Call;
use crate::markdown;
use crate::speech;
use doppler_protocol::conversations::{
    Accepted, ConversationEvent, ConversationId, ConversationList, Message, MessageChanged, Progress, Question, Role, Snapshot, Summary,
    TextAdded,
};
use doppler_protocol::engine::{Chosen, EngineState, EngineStatus};
use doppler_protocol::error::Failure;
use doppler_protocol::ui::{Choice, Listing, Site};

mod models;

pub use models::{ModelMsg, Switcher};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, for one update")]
pub enum Msg {
    /// The offscreen document is there.
    Connected,
    /// The offscreen document went away.
    Disconnected,
    /// The offscreen document could not be reached; the next attempt follows by itself.
    Unreachable(Failure),
    /// The engine's status changed.
    Status(EngineStatus),
    /// Other sites are being answered than before.
    Activity(Vec<String>),
    /// Conversations cannot be stored, for this reason, or can again.
    Storage(Option<String>),
    /// A conversation changed.
    Conversation(ConversationEvent),
    /// `conversations.list` was answered.
    Listed(ConversationList),
    /// `conversations.get` was answered.
    Opened(Option<Snapshot>),
    /// A question was accepted.
    Accepted(Accepted),
    /// A call failed.
    Failed(Call, Failure),
    /// Something about models.
    Models(ModelMsg),
    /// Something that has no place of its own failed.
    Refused(Failure),
    /// The user types.
    Typing,
    /// The user asks.
    Submit(String),
    /// The user stops the answer.
    Stop,
    /// The user wants another answer, or the same again after an error.
    Regenerate,
    /// The user starts over.
    NewChat,
    /// The user opens a conversation.
    Open(String),
    /// The user deletes a conversation.
    Delete(String),
    /// The user ends what sites are being answered.
    StopSites,
    /// The user has read the alert.
    Dismiss,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask the offscreen document.
    Call(Call),
    /// Ask the browser whether this picked model may be read.
    Permit(String),
    /// Open the list of models.
    ShowModels,
    /// Close it.
    CloseModels,
    /// Tell a screen reader.
    Announce(String),
    /// Put a question that could not be sent back into the input, if that is empty.
    Restore(String),
    /// Move the focus to the input.
    Focus,
    /// Show the end of the conversation.
    ShowEnd,
}

/// A message, and a number that changes whenever the message does.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The message.
    pub message: Message,
    /// Equal numbers mean equal messages.
    pub revision: u32,
}

/// The open conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Chat {
    /// Which conversation.
    pub id: String,
    /// Number of the last event applied.
    seq: u32,
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Bytes of the last message that a screen reader was told or need not be told.
    spoken: usize,
}

impl Chat {
    /// Whether an answer is being written.
    pub fn busy(&self) -> bool {
        self.entries.last().is_some_and(|entry| entry.message.state == Progress::Streaming)
    }
}

/// A conversation that was asked for.
#[derive(Debug, Default)]
struct Opening {
    /// Which one; `None` for the current one.
    id: Option<String>,
    /// Events since then.
    events: Vec<ConversationEvent>,
}

/// The popup's state.
#[derive(Debug, Default)]
pub struct State {
    /// Whether the offscreen document answers.
    pub connected: bool,
    /// The engine's status.
    pub engine: EngineStatus,
    /// Origins of the sites that are being answered.
    pub sites: Vec<String>,
    /// All conversations, newest first.
    pub chats: Vec<Summary>,
    /// The open conversation; `None` is a new one.
    pub chat: Option<Chat>,
    /// A question that is on its way.
    pub outgoing: Option<String>,
    /// A failure outside any answer.
    alert: Option<Failure>,
    /// Why the offscreen document cannot be reached.
    unreachable: Option<Failure>,
    /// The model that answers, or would.
    pub chosen: Option<Chosen>,
    /// The list of models.
    pub models: Switcher,
    /// Whether it is known what was open last.
    pub restored: bool,
    opening: Option<Opening>,
    /// Whether another answer was asked for and is not there yet.
    asked_again: bool,
    /// A question that waits for the conversation to be restored.
    queued: Option<String>,
    revisions: u32,
}

impl State {
    /// The failure to show now: the alert's, or else that of the connection.
    pub fn problem(&self) -> Option<&Failure> {
        self.alert.as_ref().or(self.unreachable.as_ref())
    }

    /// Why the last answer failed, if it did.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.chat.as_ref()?.entries.last()?.message.error.as_ref()
    }

    /// Why the engine does not answer, if that is about the chosen model: another that could not be loaded is not missed.
    pub fn engine_failure(&self) -> Option<&Failure> {
        let failed = self.engine.error.as_ref().filter(|_| self.engine.state == EngineState::Failed)?;
        let other = self.engine.id.as_ref().zip(self.chosen.as_ref()).is_some_and(|(id, chosen)| *id != chosen.id);
        (!other || failed.is_no_gpu()).then_some(failed)
    }

    /// Whether an alert or the last answer says already what `failure` says.
    pub fn is_told(&self, failure: &Failure) -> bool {
        [self.problem(), self.last_failure()].into_iter().flatten().any(|told| told.sentence() == failure.sentence())
    }

    /// The model and the context with which it would fit, if that is why it could not be loaded.
    pub fn fitting(&self, failure: &Failure) -> Option<(String, u32)> {
        let context = failure.data.as_ref()?.largest_context?;
        let refused = self.models.refused.as_ref().filter(|_| self.alert.as_ref() == Some(failure));
        let id = refused.or(self.engine.id.as_ref()).or(self.chosen.as_ref().map(|chosen| &chosen.id))?;
        Some((id.clone(), context))
    }

    /// Whether an answer is being written or about to be.
    pub fn busy(&self) -> bool {
        self.outgoing.is_some() || self.asked_again || self.chat.as_ref().is_some_and(Chat::busy)
    }

    /// Applies what happened and says what to do.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        match msg {
            Msg::Connected => {
                self.connected = true;
                self.unreachable = None;
                let id = self.chat.as_ref().map(|chat| chat.id.clone());
                let mut effects = vec![Effect::Call(Call::Status), Effect::Call(Call::List)];
                // A new chat stays a new chat; at the start it is not known yet what was open.
                if id.is_some() || !self.restored {
                    effects.push(self.open(id));
                }
                effects
            }
            Msg::Disconnected => {
                self.connected = false;
                self.engine = EngineStatus::default();
                self.sites.clear();
                self.opening = None;
                Vec::new()
            }
            Msg::Unreachable(failure) => {
                self.unreachable = Some(failure);
                Vec::new()
            }
            Msg::Refused(failure) => {
                self.alert = Some(failure);
                Vec::new()
            }
            Msg::Activity(sites) => {
                self.sites = sites;
                Vec::new()
            }
            Msg::StopSites => self.sites.iter().map(|origin| Effect::Call(Call::StopSite(Site { origin: origin.clone() }))).collect(),
            Msg::Storage(problem) => {
                self.alert = problem.map(|message| Failure { message, ..Failure::default() }).or(self.alert.take());
                Vec::new()
            }
            Msg::Status(status) => self.status(status),
            Msg::Conversation(event) => self.conversation(event),
            Msg::Listed(list) => {
                self.chats = list.data;
                self.update(Msg::Storage(list.problem))
            }
            Msg::Opened(snapshot) => self.opened(snapshot),
            Msg::Accepted(Accepted { id }) => {
                self.asked_again = false;
                if self.chat.as_ref().is_some_and(|chat| chat.id == id) {
                    self.outgoing = None;
                    Vec::new()
                } else if self.outgoing.is_some() {
                    vec![self.open(Some(id))]
                } else {
                    Vec::new()
                }
            }
            Msg::Failed(call, failure) => self.failed(call, failure),
            Msg::Models(msg) => self.model_list(msg),
            Msg::Typing => self.warm(),
            Msg::Submit(text) => {
                if text.trim().is_empty() || self.busy() {
                    return Vec::new();
                }
                self.alert = None;
                self.outgoing = Some(text.clone());
                self.queued = Some(text);
                let mut effects = vec![Effect::ShowEnd, Effect::Focus];
                if self.restored {
                    effects.extend(self.send_held());
                }
                effects
            }
            Msg::Stop => self.call_if(true, |id| Call::Stop(ConversationId { id })),
            Msg::Regenerate => {
                if self.busy() {
                    return Vec::new();
                }
                let mut effects = self.call_if(false, |id| Call::Regenerate(ConversationId { id }));
                self.asked_again = !effects.is_empty();
                effects.extend([Effect::Focus, Effect::ShowEnd]);
                effects
            }
            Msg::NewChat => {
                self.close();
                vec![Effect::Call(Call::New), Effect::Focus]
            }
            Msg::Open(id) => {
                self.outgoing = None;
                self.queued = None;
                self.alert = None;
                vec![self.open(Some(id)), Effect::Focus]
            }
            Msg::Delete(id) => vec![Effect::Call(Call::Delete(ConversationId { id }))],
            Msg::Dismiss => {
                self.alert = None;
                self.unreachable = None;
                vec![Effect::Focus]
            }
        }
    }

    fn status(&mut self, mut status: EngineStatus) -> Vec<Effect> {
        if let Some(sites) = status.sites.take() {
            self.sites = sites;
        }
        self.models.local = status.local.unwrap_or(self.models.local);
        self.chosen = status.chosen.clone().or(self.chosen.take());
        let before = std::mem::replace(&mut self.engine, status);
        let ready = before.state == EngineState::Loading && self.engine.state == EngineState::Ready;
        let news = ready.then(|| Effect::Announce("The model is ready.".to_owned()));
        news.into_iter().collect()
    }

    /// The model loads while the question is typed.
    fn warm(&mut self) -> Vec<Effect> {
        if self.engine.state != EngineState::Idle || !self.connected {
            return Vec::new();
        }
        self.engine.state = EngineState::Loading;
        vec![Effect::Call(Call::Warm)]
    }

    fn model_list(&mut self, msg: ModelMsg) -> Vec<Effect> {
        if let ModelMsg::Open | ModelMsg::Choose(_) | ModelMsg::ChooseWith(..) = msg {
            self.alert = None;
        }
        let listed = matches!(msg, ModelMsg::Listed(..));
        let (effects, problem) = self.models.update(msg);
        self.alert = problem.or(self.alert.take());
        if let Some(list) = self.models.list.as_ref().filter(|_| listed) {
            let name = self.models.name(&list.chosen).unwrap_or_default().to_owned();
            self.chosen = Some(Chosen { id: list.chosen.clone(), name });
        }
        effects
    }

    /// `call` on the open conversation, if there is one whose [`Chat::busy`] is `busy`.
    fn call_if(&self, busy: bool, call: impl FnOnce(String) -> Call) -> Vec<Effect> {
        let chat = self.chat.as_ref().filter(|chat| chat.busy() == busy);
        chat.map(|chat| Effect::Call(call(chat.id.clone()))).into_iter().collect()
    }

    /// Goes to an empty conversation.
    fn close(&mut self) {
        self.chat = None;
        self.opening = None;
        self.outgoing = None;
        self.queued = None;
        self.alert = None;
        self.restored = true;
    }

    fn open(&mut self, id: Option<String>) -> Effect {
        self.opening = Some(Opening { id: id.clone(), events: Vec::new() });
        Effect::Call(Call::get(id))
    }

    fn opened(&mut self, snapshot: Option<Snapshot>) -> Vec<Effect> {
        // Another conversation, or a new one, was chosen meanwhile.
        let wanted = |opening: &mut Opening| match (&opening.id, &snapshot) {
            (Some(id), Some(snapshot)) => *id == snapshot.id,
            (wanted, _) => wanted.is_none(),
        };
        let Some(opening) = self.opening.take_if(wanted) else {
            return Vec::new();
        };
        self.restored = true;
        let asked = self.outgoing.take().is_some() && self.queued.is_none();
        let Some(Snapshot { id, seq, messages }) = snapshot else {
            return self.send_held().into_iter().collect();
        };
        let before = self.chat.take().filter(|chat| chat.id == id);
        // A screen reader hears what was asked for here, or goes on where it was; not what is opened to be read.
        let spoken = match (&before, messages.last()) {
            (Some(chat), Some(last)) if chat.last_id() == Some(&last.id) => chat.spoken,
            (Some(_), _) => 0,
            (None, _) if asked => 0,
            (None, last) => last.map_or(0, |message| message.content.len()),
        };
        let entries = messages.into_iter().map(|message| self.entry(message)).collect();
        let mut chat = Chat { id, seq, entries, spoken };
        let mut effects = Vec::new();
        if asked || before.is_some() {
            effects.extend(chat.announce());
        }
        if before.is_none() {
            effects.push(Effect::ShowEnd);
        }
        self.chat = Some(chat);
        for event in opening.events {
            effects.extend(self.conversation(event));
        }
        effects.extend(self.send_held());
        effects
    }

    fn failed(&mut self, call: Call, failure: Failure) -> Vec<Effect> {
        match call {
            Call::Choose(Choice { id, .. }) => return self.update(Msg::Models(ModelMsg::Chosen(id, Err(failure)))),
            Call::Describe(Listing { id, .. }) => return self.update(Msg::Models(ModelMsg::Described(id, Err(failure)))),
            _ => {}
        }
        // The next connection repeats the requests of this one.
        if matches!(call, Call::Warm) {
            // The question that follows tries again.
            return vec![Effect::Call(Call::Status)];
        }
        if !self.connected && matches!(call, Call::Status | Call::List | Call::Get(_)) {
            return Vec::new();
        }
        if matches!(call, Call::Get(_)) && failure.name == "NotFoundError" {
            self.close();
        }
        self.alert = Some(failure);
        match call {
            Call::Regenerate(_) => {
                self.asked_again = false;
                Vec::new()
            }
            Call::Send(Question { text, .. }) => {
                self.outgoing = None;
                vec![Effect::Restore(text)]
            }
            Call::Get(_) => {
                self.opening = None;
                self.restored = true;
                self.send_held().into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Sends a question that was asked before it was known which conversation is open.
    fn send_held(&mut self) -> Option<Effect> {
        let text = self.queued.take()?;
        self.outgoing = Some(text.clone());
        let id = self.chat.as_ref().map(|chat| chat.id.clone());
        Some(Effect::Call(Call::send(id, text)))
    }

    fn conversation(&mut self, event: ConversationEvent) -> Vec<Effect> {
        match &event {
            ConversationEvent::Message(event) => self.list(event.summary.clone()),
            ConversationEvent::Deleted(event) => {
                self.chats.retain(|chat| chat.id != event.id);
                if self.chat.as_ref().is_some_and(|chat| chat.id == event.id) {
                    self.close();
                }
                return Vec::new();
            }
            ConversationEvent::Delta(_) => {}
        }
        if let Some(opening) = &mut self.opening
            && opening.id.as_ref().is_none_or(|id| id == event.id())
        {
            opening.events.push(event);
            return Vec::new();
        }
        match &self.chat {
            Some(chat) if chat.id == event.id() => self.apply(event),
            _ => Vec::new(),
        }
    }

    /// Applies an event to the open conversation, or asks for a snapshot if one before it is missing.
    fn apply(&mut self, event: ConversationEvent) -> Vec<Effect> {
        let Some(chat) = &mut self.chat else {
            return Vec::new();
        };
        let seq = match &event {
            ConversationEvent::Message(event) => event.seq,
            ConversationEvent::Delta(event) => event.seq,
            ConversationEvent::Deleted(_) => return Vec::new(),
        };
        if seq <= chat.seq {
            return Vec::new();
        }
        if seq != chat.seq + 1 {
            let id = chat.id.clone();
            return vec![self.open(Some(id))];
        }
        chat.seq = seq;
        self.revisions += 1;
        match event {
            ConversationEvent::Message(event) => {
                let MessageChanged { index, message, .. } = *event;
                let same = chat.entries.get(index).is_some_and(|entry| entry.message.id == message.id);
                // Text that was content until now may have been a thought.
                if !same || message.content.len() < chat.spoken {
                    chat.spoken = 0;
                }
                if message.role == Role::User {
                    self.outgoing = None;
                }
                chat.entries.truncate(index);
                chat.entries.push(Entry { message, revision: self.revisions });
            }
            ConversationEvent::Delta(TextAdded { text, thinking, .. }) => {
                if let Some(entry) = chat.entries.last_mut() {
                    entry.message.content.push_str(&text);
                    entry.message.thinking.push_str(&thinking);
                    entry.revision = self.revisions;
                }
            }
            ConversationEvent::Deleted(_) => {}
        }
        chat.announce().into_iter().collect()
    }

    fn entry(&mut self, message: Message) -> Entry {
        self.revisions += 1;
        Entry { message, revision: self.revisions }
    }

    fn list(&mut self, summary: Summary) {
        self.chats.retain(|chat| chat.id != summary.id);
        let place = self.chats.partition_point(|chat| chat.updated > summary.updated);
        self.chats.insert(place, summary);
    }
}

impl Chat {
    fn last_id(&self) -> Option<&String> {
        self.entries.last().map(|entry| &entry.message.id)
    }

    /// The text of the last answer for a screen reader now: its new whole sentences, or all the rest when it has ended.
    fn announce(&mut self) -> Option<Effect> {
        let Message { role, content, state, error, .. } = &self.entries.last()?.message;
        if *role == Role::User {
            return None;
        }
        let rest = content.get(self.spoken..).unwrap_or_default();
        let streaming = *state == Progress::Streaming;
        // A call of a tool is told when it is whole.
        let end = if streaming { speech::finished(markdown::before_calls(rest)) } else { rest.len() };
        let mut text = markdown::plain_text(&rest[..end]);
        self.spoken += end;
        if let Some(failure) = error {
            text = format!("{text} {}", failure.sentence());
        } else if *state == Progress::Stopped {
            text.push_str(" Stopped.");
        } else if *state == Progress::Interrupted {
            text.push_str(" The answer was cut off.");
        }
        let text = text.trim();
        (!text.is_empty()).then(|| Effect::Announce(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
