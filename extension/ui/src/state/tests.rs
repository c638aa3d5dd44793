//! The reducer, driven as the offscreen document would drive it.

use super::*;
use doppler_protocol::conversations::Deleted;
use doppler_protocol::engine::{HostState, Listed, Model, ModelList, Source};
use doppler_protocol::error::FailureData;
use doppler_protocol::native::ModelId;
use doppler_protocol::ui::ListParams;

fn message(id: &str, role: Role, content: &str, state: Progress) -> Message {
    let (thinking, thinking_ms) = (String::new(), None);
    Message { id: id.into(), role, content: content.into(), thinking, thinking_ms, state, finish: None, stats: None, error: None }
}

fn question() -> Message {
    message("q", Role::User, "Hi", Progress::Done)
}

fn answer(content: &str, state: Progress) -> Message {
    message("a", Role::Assistant, content, state)
}

fn summary(id: &str, updated: f64) -> Summary {
    Summary { id: id.into(), title: id.into(), updated, busy: false }
}

fn put(id: &str, seq: u32, index: usize, message: Message) -> Msg {
    let summary = summary(id, f64::from(seq));
    let event = MessageChanged { id: id.into(), seq, index, message, summary };
    Msg::Conversation(ConversationEvent::Message(Box::new(event)))
}

fn delta(id: &str, seq: u32, text: &str) -> Msg {
    Msg::Conversation(ConversationEvent::Delta(TextAdded { id: id.into(), seq, text: text.into(), thinking: String::new() }))
}

fn snapshot(id: &str, seq: u32, messages: &[Message]) -> Msg {
    Msg::Opened(Some(Snapshot { id: id.into(), seq, messages: messages.to_vec() }))
}

fn get(id: &str) -> Effect {
    Effect::Call(Call::get(Some(id.into())))
}

fn contents(state: &State) -> Vec<&str> {
    let entries = state.chat.as_ref().map_or(&[][..], |chat| &chat.entries);
    entries.iter().map(|entry| entry.message.content.as_str()).collect()
}

fn told(state: &State) -> Option<String> {
    state.problem().map(Failure::sentence)
}

/// Connected, with the conversation `c` open in mid-answer.
fn streaming() -> State {
    let mut state = State::default();
    state.update(Msg::Connected);
    state.update(snapshot("c", 2, &[question(), answer("One", Progress::Streaming)]));
    state
}

#[test]
fn connect_restores_current_conversation() {
    let mut state = State::default();
    let effects = state.update(Msg::Connected);
    assert!(effects.contains(&Effect::Call(Call::get(None))));
    assert!(!state.restored);
    state.update(snapshot("c", 7, &[question()]));
    assert!(state.restored);
    assert_eq!(contents(&state), ["Hi"]);
}

#[test]
fn events_before_snapshot_apply_once() {
    let mut state = State::default();
    state.update(Msg::Connected);
    for seq in 2..6 {
        state.update(delta("c", seq, &seq.to_string()));
    }
    state.update(delta("other", 3, "x"));
    state.update(snapshot("c", 3, &[question(), answer("0123", Progress::Streaming)]));
    state.update(delta("c", 6, "6"));
    state.update(delta("c", 6, "6"));
    assert_eq!(contents(&state), ["Hi", "0123456"]);
}

#[test]
fn missing_event_requests_snapshot() {
    let mut state = streaming();
    assert_eq!(state.update(delta("c", 4, "late")), [get("c")]);
    assert_eq!(state.update(delta("c", 5, "r")), []);
    state.update(snapshot("c", 4, &[question(), answer("One late", Progress::Streaming)]));
    assert_eq!(contents(&state), ["Hi", "One later"]);
}

#[test]
fn send_in_new_chat_shows_pending_question() {
    let mut state = State::default();
    state.update(Msg::Connected);
    state.update(Msg::Opened(None));
    let effects = state.update(Msg::Submit("Hi".into()));
    assert!(effects.contains(&Effect::Call(Call::send(None, "Hi"))));
    assert_eq!(state.outgoing.as_deref(), Some("Hi"));
    assert!(state.busy());
    assert_eq!(state.update(Msg::Submit("again".into())), []);
    state.update(put("c", 1, 0, question()));
    assert_eq!(state.update(Msg::Accepted(Accepted { id: "c".into() })), [get("c")]);
    state.update(put("c", 2, 1, answer("", Progress::Streaming)));
    state.update(snapshot("c", 1, &[question()]));
    assert_eq!(state.outgoing, None);
    assert_eq!(contents(&state), ["Hi", ""]);
    assert_eq!(state.chats.len(), 1);
}

#[test]
fn question_before_restore_is_sent_to_restored_chat() {
    let mut state = State::default();
    assert_eq!(state.update(Msg::Submit("Hi".into())), [Effect::ShowEnd, Effect::Focus]);
    state.update(Msg::Connected);
    let effects = state.update(snapshot("c", 0, &[]));
    assert!(effects.contains(&Effect::Call(Call::send(Some("c".into()), "Hi"))));
    assert_eq!(state.outgoing.as_deref(), Some("Hi"));
}

#[test]
fn connect_ends_only_unreachable_alert() {
    let failure = || Failure { name: "OperationError".into(), message: "It broke.".into(), ..Failure::default() };
    let mut state = State::default();
    state.update(Msg::Unreachable(failure()));
    assert_eq!(told(&state).as_deref(), Some("It broke."));
    state.update(Msg::Connected);
    assert_eq!(told(&state), None);
    state.update(Msg::Disconnected);
    state.update(Msg::Refused(failure()));
    state.update(Msg::Connected);
    assert_eq!(told(&state).as_deref(), Some("It broke."));
}

#[test]
fn typing_warms_model_once() {
    let mut state = State::default();
    assert_eq!(state.update(Msg::Typing), []);
    state.update(Msg::Connected);
    let warm = Effect::Call(Call::Warm);
    assert_eq!(state.update(Msg::Typing), [warm]);
    assert_eq!(state.update(Msg::Typing), []);
    let ready = EngineStatus { state: EngineState::Ready, ..EngineStatus::default() };
    state.update(Msg::Status(ready));
    assert_eq!(state.update(Msg::Typing), []);
    state.update(Msg::Disconnected);
    assert_eq!(state.update(Msg::Typing), []);
}

#[test]
fn question_send_failure_restores_text() {
    let mut state = streaming();
    state.update(Msg::NewChat);
    state.update(Msg::Submit("Hi".into()));
    let failure = Failure { name: "OperationError".into(), message: "It broke.".into(), ..Failure::default() };
    let effects = state.update(Msg::Failed(Call::send(None, "Hi"), failure));
    assert_eq!(effects, [Effect::Restore("Hi".into())]);
    assert_eq!(told(&state).as_deref(), Some("It broke."));
    assert!(!state.busy());
}

#[test]
fn stop_and_regenerate_depend_on_progress() {
    let mut state = streaming();
    assert_eq!(state.update(Msg::Stop), [Effect::Call(Call::Stop(ConversationId { id: "c".into() }))]);
    let regenerate = Effect::Call(Call::Regenerate(ConversationId { id: "c".into() }));
    assert!(!state.update(Msg::Regenerate).contains(&regenerate));
    state.update(put("c", 3, 1, answer("One", Progress::Stopped)));
    assert_eq!(state.update(Msg::Stop), []);
    assert!(state.update(Msg::Regenerate).contains(&regenerate));
    assert!(state.busy(), "no second question in between");
    let another = message("b", Role::Assistant, "", Progress::Streaming);
    state.update(put("c", 4, 1, another));
    assert_eq!(contents(&state), ["Hi", ""]);
    assert!(state.busy());
}

#[test]
fn new_chat_ignores_events_of_old_chat() {
    let mut state = streaming();
    assert!(state.update(Msg::NewChat).contains(&Effect::Call(Call::New)));
    state.update(delta("c", 3, " more"));
    state.update(put("c", 4, 1, answer("One more", Progress::Done)));
    assert!(state.chat.is_none());
    state.update(Msg::Disconnected);
    assert!(!state.update(Msg::Connected).iter().any(|effect| matches!(effect, Effect::Call(Call::Get(_)))));
    assert!(state.update(Msg::Open("c".into())).contains(&get("c")));
}

#[test]
fn open_latest_choice_wins() {
    let mut state = streaming();
    state.update(Msg::Open("d".into()));
    state.update(Msg::Open("e".into()));
    state.update(snapshot("d", 1, &[question()]));
    assert_eq!(state.chat.as_ref().map(|chat| chat.id.as_str()), Some("c"));
    state.update(snapshot("e", 1, &[question()]));
    assert_eq!(state.chat.as_ref().map(|chat| chat.id.as_str()), Some("e"));
}

#[test]
fn delete_open_conversation_leaves_new_chat() {
    let mut state = streaming();
    state.update(put("c", 3, 1, answer("One", Progress::Done)));
    assert_eq!(state.chats.len(), 1);
    assert_eq!(state.update(Msg::Delete("c".into())), [Effect::Call(Call::Delete(ConversationId { id: "c".into() }))]);
    state.update(Msg::Conversation(ConversationEvent::Deleted(Deleted { id: "c".into(), seq: 3 })));
    assert!(state.chat.is_none());
    assert!(state.chats.is_empty());
}

#[test]
fn conversations_are_listed_newest_first() {
    let mut state = State::default();
    state.update(Msg::Listed(ConversationList { data: vec![summary("b", 2.0), summary("a", 1.0)], problem: None }));
    state.update(put("a", 3, 0, question()));
    let ids: Vec<_> = state.chats.iter().map(|chat| chat.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[test]
fn disconnect_alert_ends_on_reconnect() {
    let mut state = streaming();
    state.update(Msg::Disconnected);
    state.update(Msg::Failed(Call::get(None), Failure::default()));
    assert_eq!(told(&state), None);
    let effects = state.update(Msg::Connected);
    assert!(effects.contains(&get("c")));
    state.update(snapshot("c", 0, &[question(), answer("One two", Progress::Interrupted)]));
    assert_eq!(contents(&state), ["Hi", "One two"]);
    assert!(!state.busy());
}

#[test]
fn announcements_are_sentences_then_rest() {
    let mut state = streaming();
    assert_eq!(state.update(delta("c", 3, " is")), []);
    assert_eq!(state.update(delta("c", 4, " **one**. Tw")), [Effect::Announce("is one.".into())]);
    assert_eq!(state.update(delta("c", 5, "o")), []);
    let done = answer("One is **one**. Two", Progress::Done);
    assert_eq!(state.update(put("c", 6, 1, done)), [Effect::Announce("Two".into())]);

    let mut failed = message("b", Role::Assistant, "", Progress::Streaming);
    state.update(put("c", 7, 1, failed.clone()));
    failed.state = Progress::Failed;
    failed.error = Some(Failure { name: String::new(), message: "It broke.".into(), ..Failure::default() });
    assert_eq!(state.update(put("c", 8, 1, failed)), [Effect::Announce("It broke.".into())]);
}

#[test]
fn announcements_of_first_answer_are_complete() {
    let mut state = State::default();
    state.update(Msg::Connected);
    state.update(Msg::Opened(None));
    state.update(Msg::Submit("Hi".into()));
    state.update(Msg::Accepted(Accepted { id: "c".into() }));
    state.update(delta("c", 5, " Three."));
    let effects = state.update(snapshot("c", 4, &[question(), answer("One. Two.", Progress::Streaming)]));
    let spoken: Vec<_> = effects.into_iter().filter(|effect| matches!(effect, Effect::Announce(_))).collect();
    assert_eq!(spoken, [Effect::Announce("One.".into()), Effect::Announce("Two.".into())]);

    // A snapshot that fills a gap goes on where the reader was; an old conversation is not read out.
    assert_eq!(state.update(delta("c", 7, "x")), [get("c")]);
    let whole = answer("One. Two. Three. F", Progress::Streaming);
    assert_eq!(state.update(snapshot("c", 7, &[question(), whole])), [Effect::Announce("Three.".into())]);
    state.update(Msg::Open("d".into()));
    let old = message("z", Role::Assistant, "Old. Text.", Progress::Stopped);
    assert_eq!(state.update(snapshot("d", 0, &[old])), [Effect::ShowEnd]);
}

#[test]
fn revisions_change_only_for_changed_entries() {
    let mut state = streaming();
    let revisions = |state: &State| {
        let entries = state.chat.as_ref().map_or(&[][..], |chat| &chat.entries);
        entries.iter().map(|entry| entry.revision).collect::<Vec<_>>()
    };
    let before = revisions(&state);
    state.update(delta("c", 3, "x"));
    let after = revisions(&state);
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
}

fn models(chosen: &str) -> ModelList {
    let model = |id: &str, source| Listed { id: id.into(), name: id.into(), source, bytes: None, format: None };
    let data = vec![model("spark", Source::Embedded), model("host", Source::Host), model("file", Source::Picked)];
    ModelList { data, chosen: chosen.into(), problems: Vec::new(), host: HostState::default() }
}

fn listed(state: &mut State, number: u32, chosen: &str) -> Vec<Effect> {
    state.update(Msg::Models(ModelMsg::Listed(number, models(chosen))))
}

#[test]
fn models_are_described_sequentially_while_list_is_open() {
    let mut state = State::default();
    let ask = |number, host| [Effect::Call(Call::Models(number, ListParams { host }))];
    let describe = |id: &str| vec![Effect::Call(Call::Describe(Listing { id: id.into(), bytes: None }))];
    assert_eq!(state.update(Msg::Models(ModelMsg::Open)), ask(1, false));
    assert_eq!(listed(&mut state, 1, "spark"), ask(2, true), "the native host takes its time");
    state.update(Msg::Models(ModelMsg::Close));
    assert_eq!(listed(&mut state, 2, "spark"), []);
    assert_eq!(state.update(Msg::Models(ModelMsg::Open)), ask(3, true));
    assert_eq!(listed(&mut state, 3, "spark"), describe("file"));
    let failure = Failure { message: "damaged".into(), ..Failure::default() };
    assert_eq!(state.update(Msg::Failed(Call::Describe(Listing { id: "file".into(), bytes: None }), failure)), describe("host"));
    state.update(Msg::Models(ModelMsg::Close));
    assert_eq!(state.update(Msg::Models(ModelMsg::Described("host".into(), Ok(Model::default())))), []);
    assert_eq!(told(&state), None, "what cannot be described says so in its line");
    assert_eq!(state.update(Msg::Models(ModelMsg::Open)), ask(4, true));
    assert_eq!(listed(&mut state, 4, "spark"), describe("file"), "a failure is tried again");
}

#[test]
fn model_list_outdated_answer_is_ignored() {
    let mut state = State::default();
    state.update(Msg::Models(ModelMsg::Open));
    assert_eq!(state.update(Msg::Models(ModelMsg::Forgotten)), [Effect::Call(Call::Models(2, ListParams { host: false }))]);
    listed(&mut state, 2, "spark");
    assert_eq!(listed(&mut state, 1, "file"), []);
    assert_eq!(state.models.list.as_ref().map(|list| &*list.chosen), Some("spark"));
    assert!(!state.models.local);
}

#[test]
fn choose_failure_is_shown_unless_overtaken() {
    let mut state = State::default();
    state.update(Msg::Models(ModelMsg::Open));
    listed(&mut state, 1, "spark");
    let choose = |id: &str| Effect::Call(Call::choose(id, None));
    let chose = |state: &mut State, id: &str| state.update(Msg::Models(ModelMsg::Choose(id.into())));
    assert_eq!(chose(&mut state, "host"), [choose("host")]);
    assert_eq!(chose(&mut state, "host"), [], "it is being loaded");
    // Another choice takes its place: what becomes of the first is of no interest.
    assert_eq!(chose(&mut state, "file"), [Effect::Permit("file".into())]);
    let failure = Failure { message: "switched".into(), ..Failure::default() };
    state.update(Msg::Failed(Call::choose("host", None), failure.clone()));
    assert_eq!((told(&state).as_deref(), state.models.choosing.as_deref()), (None, Some("file")));
    chose(&mut state, "host");
    for permitted in [true, false] {
        assert_eq!(state.update(Msg::Models(ModelMsg::Permitted("file".into(), permitted))), [], "that is settled");
    }
    assert_eq!((told(&state).as_deref(), state.models.choosing.as_deref()), (None, Some("host")));
    chose(&mut state, "file");
    assert_eq!(state.update(Msg::Models(ModelMsg::Permitted("file".into(), true))), [choose("file")]);
    state.update(Msg::Failed(Call::choose("file", None), failure));
    assert_eq!((told(&state).as_deref(), state.models.choosing.as_deref()), (Some("Switched."), None));

    chose(&mut state, "host");
    assert_eq!(told(&state), None);
    let effects = state.update(Msg::Models(ModelMsg::Chosen("host".into(), Ok(()))));
    assert_eq!(effects, [Effect::CloseModels, Effect::Call(Call::Models(4, ListParams { host: true }))]);
    listed(&mut state, 4, "host");
    assert!(state.models.local);

    chose(&mut state, "file");
    state.update(Msg::Models(ModelMsg::Permitted("file".into(), false)));
    assert_eq!(state.models.choosing, None);
    assert!(told(&state).is_some());
}

fn fault(code: &str) -> Failure {
    Failure { message: "it is no model".into(), code: code.into(), ..Failure::default() }
}

#[test]
fn models_are_listed_by_name() {
    let mut state = State::default();
    let model = |id: &str, name: &str, source| Listed { id: id.into(), name: name.into(), source, bytes: None, format: None };
    let data = vec![
        model("spark", "Spark", Source::Embedded),
        model("picked-9", "zeta.gguf", Source::Picked),
        model("picked-1", "Beta.gguf", Source::Picked),
        model("host", "alpha.gguf", Source::Host),
    ];
    state.update(Msg::Models(ModelMsg::Open));
    let list = ModelList { data, chosen: "spark".into(), problems: Vec::new(), host: HostState::default() };
    state.update(Msg::Models(ModelMsg::Listed(1, list)));
    let names: Vec<_> = state.models.list.iter().flat_map(|list| &list.data).map(|model| &*model.name).collect();
    assert_eq!(names, ["Spark", "alpha.gguf", "Beta.gguf", "zeta.gguf"]);
}

#[test]
fn dropped_file_without_model_is_removed_from_list() {
    let forget = Effect::Call(Call::Forget(ModelId { id: "new".into() }));
    let drop_and_fail = |state: &mut State, id: &str, code: &str| {
        state.update(Msg::Models(ModelMsg::Picked(vec![id.into()])));
        state.update(Msg::Failed(Call::choose(id, None), fault(code)))
    };
    let mut state = State::default();
    state.update(Msg::Models(ModelMsg::Open));
    listed(&mut state, 1, "spark");
    assert_eq!(drop_and_fail(&mut state, "new", "model_file_invalid"), std::slice::from_ref(&forget));
    assert_eq!(told(&state).as_deref(), Some("It is no model."));
    assert!(!drop_and_fail(&mut state, "new", "out_of_memory").contains(&forget), "it may fit tomorrow");
    let known = drop_and_fail(&mut state, "file", "model_file_invalid");
    assert!(matches!(known[..], [Effect::Call(Call::Models(..))]), "one that was in the list stays: {known:?}");
}

#[test]
fn model_too_large_is_offered_with_fitting_context() {
    let mut state = State::default();
    state.update(Msg::Models(ModelMsg::Open));
    listed(&mut state, 1, "spark");
    state.update(Msg::Models(ModelMsg::Choose("host".into())));
    let mut failure = fault("out_of_memory");
    state.update(Msg::Failed(Call::choose("host", None), failure.clone()));
    assert_eq!(state.problem().and_then(|failure| state.fitting(failure)), None, "it does not fit at all");
    state.update(Msg::Models(ModelMsg::Choose("host".into())));
    failure.data = Some(Box::new(FailureData { largest_context: Some(4096), ..FailureData::default() }));
    state.update(Msg::Failed(Call::choose("host", None), failure.clone()));
    assert_eq!(state.problem().and_then(|failure| state.fitting(failure)), Some(("host".into(), 4096)));
    let effects = state.update(Msg::Models(ModelMsg::ChooseWith("host".into(), 4096)));
    assert_eq!(effects, [Effect::Call(Call::choose("host", Some(4096)))]);
    assert_eq!((told(&state), state.models.choosing.as_deref()), (None, Some("host")));

    // The chosen model may have been loaded for a question.
    let mut state = streaming();
    state.update(Msg::Status(EngineStatus { state: EngineState::Failed, id: Some("big".into()), ..EngineStatus::default() }));
    assert_eq!(state.fitting(&failure), Some(("big".into(), 4096)));
}

#[test]
fn announcements_omit_thoughts_and_name_calls() {
    let mut state = streaming();
    let thought = TextAdded { id: "c".into(), seq: 3, text: String::new(), thinking: "Let me think. Well.".into() };
    assert_eq!(state.update(Msg::Conversation(ConversationEvent::Delta(thought))), []);
    let call = "\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo. It\"}}\n</tool_call>";
    assert_eq!(state.update(delta("c", 4, ". Two.")), [Effect::Announce(".".into())]);
    assert_eq!(state.update(delta("c", 5, call)), [Effect::Announce("Two.".into())]);
    let mut done = answer(&format!("One. Two.{call}"), Progress::Done);
    done.thinking = "Let me think. Well.".into();
    assert_eq!(state.update(put("c", 6, 1, done)), [Effect::Announce("Calls weather.".into())]);
}

#[test]
fn sites_answered_are_listed_and_stoppable() {
    let mut state = State::default();
    state.update(Msg::Connected);
    state.update(Msg::Status(EngineStatus { sites: Some(vec!["https://a.test".into()]), ..EngineStatus::default() }));
    // What is told unasked does not name them.
    state.update(Msg::Status(EngineStatus::default()));
    assert_eq!(state.sites, ["https://a.test"]);
    assert_eq!(state.update(Msg::StopSites), [Effect::Call(Call::StopSite(Site { origin: "https://a.test".into() }))]);
    state.update(Msg::Activity(Vec::new()));
    assert!(state.sites.is_empty());
    assert_eq!(state.update(Msg::StopSites), []);
}

#[test]
fn storage_failure_is_an_alert() {
    let mut state = State::default();
    state.update(Msg::Connected);
    state.update(Msg::Listed(ConversationList { data: Vec::new(), problem: Some("No room.".into()) }));
    assert_eq!(told(&state).as_deref(), Some("No room."));
    state.update(Msg::Dismiss);
    assert_eq!(told(&state), None);
    state.update(Msg::Storage(Some("No room.".into())));
    assert_eq!(told(&state).as_deref(), Some("No room."));
    // That there is room again does not take another alert away.
    state.update(Msg::Storage(None));
    assert_eq!(told(&state).as_deref(), Some("No room."));
}
