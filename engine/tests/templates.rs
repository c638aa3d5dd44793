//! Chat templates against Jinja2 and `transformers`, requests as pages send them, and templates that are hostile.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use doppler_engine::formats::{Array, Metadata, Value};
use doppler_engine::text::template::Options;
use doppler_engine::text::{ChatTemplate, TextError};
use serde_json::{Map, Value as Json, json};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/text").join(name)
}

fn fixture(name: &str) -> Vec<Json> {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

/// The templates of real models, by file.
fn real_templates() -> Vec<(String, ChatTemplate)> {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")];
    let tokens = Map::from_iter(tokens.map(|(name, text)| (name.to_owned(), text.into())));
    let files = std::fs::read_dir(path("templates")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|e| e == "jinja"));
    files
        .map(|file| {
            let template = ChatTemplate::new(&std::fs::read_to_string(&file).unwrap(), tokens.clone()).unwrap();
            (file.file_stem().unwrap().to_string_lossy().into_owned(), template)
        })
        .collect()
}

/// What `source` says to `messages` at 2025-07-10 12:00.
fn render(source: &str, messages: &Json) -> Result<String, TextError> {
    let mut template = ChatTemplate::new(source, Map::new())?;
    template.set_clock(|| 1_752_148_800);
    template.render(messages, Options::for_answer(None))
}

/// Expressions in which `minijinja` itself differs, and no template of a chat would be so: errors that a template does not ask for
/// (slices of what has no order, numbers in strings), escaped text that is added to, `varargs`, a macro's `arguments`, and `lipsum`.
const DIFFERENT: &[&str] = &[
    "{{ none[1:] }}",
    "{{ {'a':1}[1:] }}",
    "{{ 1 in 'abc' }}",
    "{{ ('<'|e) + '>' }}",
    "{{ lipsum is defined }}",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, z=4) }}",
    "{% macro m(a, b='d') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }}{{ m.name }}{{ m.arguments }}{{ m(1)|upper }}{{ m(1) is string }}",
];

#[test]
fn template_expressions_equal_jinja2() {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let mut wrong = Vec::new();
    let cases = fixture("jinja.json");
    for case in &cases {
        let source = case["template"].as_str().unwrap();
        let mut template = ChatTemplate::new(source, Map::new());
        let got = template.as_mut().map_err(|e| e.clone()).and_then(|template| {
            template.set_clock(|| 1_752_148_800);
            template.render_as_is(&messages, Options::for_answer(None))
        });
        let same = match (&case["text"], &got) {
            (Json::String(want), Ok(text)) => want == text,
            (Json::Null, Err(_)) => true,
            _ => false,
        };
        if same == DIFFERENT.contains(&source) {
            wrong.push(format!("{source}\n  {got:?}, not {:?} {:?}", case["text"], case["error"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() > 1000);
}

#[test]
fn template_requests_render_as_in_transformers() {
    let cases = fixture("template_cases.json");
    for case in &cases {
        let text = render(case["template"].as_str().unwrap(), &case["request"]);
        assert_eq!(text.as_deref().ok(), case["text"].as_str(), "{}: {text:?}", case["name"]);
    }
    assert_eq!(cases.len(), 21);
}

/// Conversations as pages send them, with a word of its own for every string, and those words.
fn requests() -> Vec<(&'static str, Json, Vec<&'static str>)> {
    let call = |arguments: &str| json!([{ "id": "call12345", "type": "function", "function": { "name": "zeta", "arguments": arguments } }]);
    let result = json!({ "role": "tool", "tool_call_id": "call12345", "name": "zeta", "content": "{\"eta\": \"th\u{e9}ta\"}" });
    let user = |text: &str| json!({ "role": "user", "content": text });
    let parts =
        json!({ "role": "user", "content": [{ "type": "text", "text": "alpha <b> & \"x\"" }, { "type": "text", "text": " omega" }] });
    let full = call("{\"kappa\": \"lamb'da\", \"mu\": [1e-05, {\"nu\": \"x\u{ed}\"}], \"n\": 12345678901234567}");
    let with_call = |content: Json, calls: &Json| json!([user("alpha"), { "role": "assistant", "content": content, "tool_calls": calls }, result, user("omega")]);
    vec![
        ("a question", json!([user(" alpha\n\n  beta\\ \"gamma\" ")]), vec!["alpha", "beta\\", "\"gamma\""]),
        ("parts", json!([parts]), vec!["alpha", "omega"]),
        ("system", json!([{ "role": "system", "content": "sigma" }, user("alpha")]), vec!["sigma", "alpha"]),
        (
            "system in parts",
            json!([{ "role": "system", "content": [{ "type": "text", "text": "sigma" }] }, parts]),
            vec!["sigma", "alpha", "omega"],
        ),
        ("two users", json!([user("alpha"), user("beta")]), vec!["alpha", "beta"]),
        (
            "two systems",
            json!([{ "role": "system", "content": "sigma" }, { "role": "system", "content": "tau" }, user("alpha")]),
            vec!["sigma", "tau", "alpha"],
        ),
        ("turns", json!([user("alpha"), { "role": "assistant", "content": "beta" }, user("gamma")]), vec!["alpha", "beta", "gamma"]),
        (
            "thoughts",
            json!([user("alpha"), { "role": "assistant", "content": "<think>\nhm\n</think>\n\nbeta", "reasoning_content": "hm" }, user("gamma")]),
            vec!["alpha", "beta", "gamma"],
        ),
        ("a call", with_call(json!(null), &full), vec!["alpha", "zeta", "kappa", "lamb'da", "nu", "eta", "omega", "12345678901234567"]),
        ("a call, empty content", with_call(json!(""), &full), vec!["alpha", "zeta", "kappa", "lamb'da", "nu", "eta", "omega"]),
        ("a call, content", with_call(json!("pi"), &full), vec!["alpha", "pi", "zeta", "kappa", "nu", "eta", "omega"]),
        ("a call without arguments", with_call(json!(null), &call("{}")), vec!["alpha", "zeta", "eta", "omega"]),
        ("a call with no JSON", with_call(json!(null), &call("kappa lambda")), vec!["alpha", "zeta", "kappa lambda", "eta", "omega"]),
        ("a call with a list", with_call(json!(null), &call("[\"kappa\"]")), vec!["alpha", "zeta", "kappa", "eta", "omega"]),
        ("an unknown role", json!([user("alpha"), { "role": "narrator", "content": "beta" }]), vec!["alpha", "beta"]),
        ("no content", json!([user("alpha"), { "role": "assistant", "tool_calls": full }, result]), vec!["alpha", "zeta", "kappa", "eta"]),
    ]
}

/// Templates that have no place for tools.
const WITHOUT_TOOLS: &[&str] = &["cohere", "deepseek_r1_distill", "gemma", "gemma3", "llama3", "phi3", "phi3_5"];

/// Tools are shown to the model, or the request is refused: never ignored.
#[test]
fn template_ignoring_tools_is_refused() {
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name, "description": "d", "parameters": { "type": "object", "properties": {} } } });
    let (tools, question) = (json!([tool("zeta"), tool("eta_7")]), json!([{ "role": "user", "content": "alpha zeta eta_7" }]));
    for (file, template) in real_templates() {
        let with = template.shape(&question, Options::for_answer(Some(&tools))).unwrap().whole();
        assert_eq!(with.is_err(), WITHOUT_TOOLS.contains(&file.as_str()), "{file}: {with:?}");
        if let Err(error) = with {
            assert!(error.to_string().contains("leaves out tools: the model has no place for them"), "{file}: {error}");
        }
        // One refuses a question without tools.
        let [none, empty] = [None, Some(&json!([]))].map(|tools| template.shape(&question, Options::for_answer(tools)));
        assert_eq!(none.as_ref().map(|shaped| &shaped.missing), empty.as_ref().map(|shaped| &shaped.missing), "{file}");
        assert!(none.is_ok_and(|shaped| shaped.missing.is_none()) || file == "hermes_3_tool_use", "{file}");
    }
    let first = "{{ messages[0].content }}{% if tools %}{{ tools[0].function.name }}{% endif %}";
    let template = ChatTemplate::new(first, Map::new()).unwrap();
    let question = json!([{ "role": "user", "content": "alpha" }]);
    let error = template.shape(&question, Options::for_answer(Some(&tools))).unwrap().whole().unwrap_err();
    assert!(error.to_string().contains("leaves out tools[1]"), "{error}");
}

/// Whatever the template: every text that was sent is in the prompt, or an error names one that is not, or the template refuses.
#[test]
fn template_prompt_contains_every_text_or_fails() {
    let tools = json!([{ "type": "function", "function": { "name": "zeta", "description": "d", "parameters": { "type": "object", "properties": {} } } }]);
    let (mut whole, mut all) = (0, 0);
    let templates = real_templates();
    assert!(templates.len() >= 23);
    for (file, template) in &templates {
        let options = Options::for_answer(Some(&tools).filter(|_| !WITHOUT_TOOLS.contains(&file.as_str())));
        for (name, messages, words) in requests() {
            all += 1;
            let shaped = match template.shape(&messages, options) {
                Ok(shaped) => shaped,
                Err(error) => {
                    assert!(matches!(error, TextError::Render { .. }), "{file}, {name}: {error}");
                    continue;
                }
            };
            let text = template.render_as_is(&shaped.messages, options).unwrap();
            let plain = text.replace("\\\\", "\\").replace("\\\"", "\"").replace("\\u00e9", "\u{e9}");
            let lost: Vec<&&str> = words.iter().filter(|word| !plain.contains(**word) && !text.contains(**word)).collect();
            assert!(lost.is_empty() || shaped.missing.is_some(), "{file}, {name}: {lost:?} not in {text}");
            // Nothing is shown in Python's words for lists, nor are arguments encoded twice.
            let twice = text.contains("\\\"kappa\\\"") && name != "a call with a list";
            assert!(!text.contains("'type': 'text'") && !twice, "{file}, {name}: {text}");
            if let Err(error) = shaped.clone().whole() {
                assert!(error.to_string().contains("messages["), "{file}, {name}: {error}");
            } else {
                whole += 1;
            }
        }
    }
    println!("{whole} of {all} whole");
    assert!(whole * 10 > all * 7, "{whole} of {all}");
}

#[test]
fn template_without_system_role_merges_messages() {
    let strict = "{% for m in messages %}{% if m.role != ('user' if loop.index0 % 2 == 0 else 'assistant') %}{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    let system = json!({ "role": "system", "content": "s" });
    let user = |text: &str| json!({ "role": "user", "content": text });
    for (messages, want) in [
        (json!([system, user("a")]), "<user>s\na"),
        (json!([user("a"), user("b")]), "<user>a\nb"),
        (json!([system, user("a"), user("b"), { "role": "assistant", "content": "c" }]), "<user>s\na\nb<assistant>c"),
        (json!([system]), "<user>s"),
    ] {
        assert_eq!(render(strict, &messages).as_deref(), Ok(want));
    }
    let refused = render(strict, &json!([{ "role": "assistant", "content": "a" }])).unwrap_err().to_string();
    assert!(refused.contains("roles must alternate"), "{refused}");
    // Left alone where there is a place.
    let open = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    assert_eq!(render(open, &json!([system, user("a"), user("b")])).as_deref(), Ok("<system>s<user>a<user>b"));
    let silent = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }};{% endif %}{% endfor %}";
    assert_eq!(render(silent, &json!([system, user("a")])).as_deref(), Ok("s\na;"));
}

fn metadata(template: &str) -> Metadata {
    let mut m = Metadata::new();
    m.insert("tokenizer.chat_template", Value::String(template.to_owned()));
    let tokens = ["<unk>", "<s>", "</s>", "a"].map(str::to_owned).to_vec();
    m.insert("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    m
}

#[test]
fn template_token_texts_default_by_tokenizer() {
    let user = json!([{ "role": "user", "content": "a" }]);
    let text = |m: &Metadata| ChatTemplate::from_gguf(m).unwrap().render(&user, Options::for_answer(None)).unwrap();
    let mut m = metadata("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ unk_token }}{{ pad_token }}");
    assert_eq!(text(&m), "a");
    m.insert("tokenizer.ggml.model", Value::String("llama".to_owned()));
    assert_eq!(text(&m), "<s>a</s><unk>");
    m.insert("tokenizer.ggml.bos_token_id", Value::U32(3));
    m.insert("tokenizer.ggml.eos_token_id", Value::U32(99));
    m.insert("tokenizer.ggml.padding_token_id", Value::I32(-1));
    assert_eq!(text(&m), "aa</s><unk>", "what is beyond the vocabulary, or -1, is no token");
}

#[test]
fn template_empty_is_absent_and_broken_tool_template_fails_with_tools() {
    for empty in ["", " \n"] {
        assert!(matches!(ChatTemplate::from_gguf(&metadata(empty)), Err(TextError::NoChatTemplate)));
    }
    let user = json!([{ "role": "user", "content": "a" }]);
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    let mut m = metadata("{{ messages[0].content }}");
    for (source, want) in [("{% if %}", None), ("", Some("a")), ("T{{ messages[0].content }}", Some("Ta"))] {
        m.insert("tokenizer.chat_template.tool_use", Value::String(source.to_owned()));
        let template = ChatTemplate::from_gguf(&m).unwrap();
        assert_eq!(template.render(&user, Options::for_answer(None)).as_deref(), Ok("a"));
        assert_eq!(template.render(&user, Options::for_answer(Some(&json!([])))).as_deref(), Ok("a"));
        let with_tools = template.render(&user, Options::for_answer(Some(&tools)));
        assert_eq!(with_tools.as_deref().ok(), want, "{source}");
        assert!(want.is_some() || matches!(with_tools, Err(TextError::Template { .. })));
    }
}

/// Single steps that would take memory or time without end.
fn hostile_steps() -> Vec<String> {
    [
        "{{ [[1]] | tojson(indent=1000000000) }}",
        "{{ [1] | tojson(indent='x' * 1000000000) }}",
        "{% set a = 'a' * 1000000000 %}",
        "{{ [1] * 1000000000 }}",
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
        "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
        "{{ ('a\\n' * 30000) | indent(30000) }}",
        "{{ 'a' | indent(1000000000, true) }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}{{ 'a'.zfill(1000000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1.5 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '{:1000000000}'.format('a') }}",
        "{{ '{:.1000000000f}'.format(1.5) }}",
        "{{ '{:{}}'.format('a', 1000000000) }}",
        "{{ '{:.70000f}'.format(1.5) }}",
        "{{ '%.70000d' % 1 }}",
        "{{ '%.70000g' % 1 }}",
        "{{ '{0[a]é}'.format({'a': 1}) }}",
        "{{ ('\\t' * 100000).expandtabs(100000) }}",
        "{{ range(100000) | list | join('a' * 100000) }}",
        "{{ ('a' * 100000).join(range(100000) | map('string')) }}",
        "{{ ('a b ' * 30000) | wordwrap(1, true, 'x' * 10000) }}",
        "{{ range(1000000000) }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 1000 }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% for i in [n] %}{{ f(n + 1) }}{% endfor %}{% endmacro %}{{ f(1) }}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ strftime_now('%c' * 100000) }}",
        "{{ strftime_now('%999999999d') ~ strftime_now('%Y' * 4000) }}",
        "{% set ns = namespace() %}{% set ns.ns = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.l = [ns] %}{{ ns }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% include 'default' %}{{ self }}{% extends 'default' %}",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Templates that would end or stop the engine.
fn hostile() -> Vec<String> {
    let n = 100_000;
    let repeat = "{% set ns = namespace(x='ab', l=[1]) %}{% for i in range(100000) %}";
    let end = "{% endfor %}{{ ns.x }}";
    let mut all = hostile_steps();
    for step in [
        "{% set ns.x = ns.x ~ ns.x %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% set ns.l = [ns.l, ns.l] %}",
        "{% set ns.l = ns.l + ns.l %}",
        "{% set ns.l = ns.l * 2 %}",
        "{% set ns.l = [ns.l] %}",
        "{% set ns.l = (ns.l, ns.l) %}",
        "{% set ns.l = {'a': ns.l, 'b': ns.l} %}",
        "{% set ns.l = ns.l[0:] %}",
        "{% set ns.l = ns.l | batch(1) | list %}",
        "{% set ns.l = ns.l | map('list') %}",
        "{% set ns.l = dict(a=ns.l) %}",
        "{% set ns.l = namespace(a=ns.l) %}",
        "{% set ns.x = ns.x | replace('a', 'aa') %}",
        "{% set ns.x = '%s%s' % (ns.x, ns.x) %}",
        "{% set ns.x = '{}{}'.format(ns.x, ns.x) %}",
        "{% set ns.x = [ns.x, ns.x] | join %}",
        "{% set ns.x = [ns.x, ns.x] | tojson %}",
        "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}",
        "{% set ns.x = ns.x.ljust(ns.x | length * 2) %}",
        "{% set ns.l = ns.l + [1] %}",
        "{% set ns.l = {'a': ns.l}.items %}",
        "{% set ns.l = [{'a': ns.l}.items] %}",
    ] {
        all.push(format!("{repeat}{step}{end}"));
    }
    for (before, middle, after) in [
        ("{{ ", "-", "1 }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ 1", " and 1", " }}"),
        ("{{ 1", " or 1", " }}"),
        ("{{ 1", " ** 1", " }}"),
        ("{{ 1", " % 1", " }}"),
        ("{{ 1", " + 1", " }}"),
        ("{{ 1", " ~ 1", " }}"),
        ("{{ 1", " < 1", " }}"),
        ("{{ range", "()", " }}"),
        ("{{ messages", "[0]", " }}"),
        ("{{ messages", ".a", " }}"),
        ("{{ 1", "|string", " }}"),
        ("{{ 1", " is eq 1", " }}"),
        ("{{ 1", " if 1 else 1", " }}"),
        ("{{ ", "[", "1 }}"),
        ("{{ ", "(", "1 }}"),
        ("{{ ", "{'a':", "1 }}"),
        ("", "{% if 1 %}", ""),
        ("{% if 1 %}", "{% elif 1 %}", "{% endif %}"),
        ("", "{% for i in [1] %}", ""),
        ("", "{% filter upper %}", ""),
        ("", "{% set x %}", ""),
        ("", "{% with %}", ""),
        ("", "{% set a = [a] %}", "{{ a }}"),
        ("", "{# #}", ""),
    ] {
        all.push(format!("{before}{}{after}", middle.repeat(n)));
    }
    all.push("{% set a = [a] %}".repeat(7_000) + "{{ a }}");
    all.push("{% set a = (messages, a)[0:] %}".repeat(3_500) + "{{ a }}");
    all
}

/// On a stack like that of a worker: 1 MiB.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
}

#[test]
fn template_hostile_is_refused_quickly() {
    on_a_small_stack(|| {
        let slowest = hostile().into_iter().map(|source| {
            let begun = Instant::now();
            let result = render(&source, &json!([{ "role": "user", "content": "hi" }]));
            let took = begun.elapsed();
            let shown: String = source.chars().take(150).collect();
            println!("{took:?} {shown} {:.120}", format!("{result:?}"));
            assert!(
                matches!(result, Err(TextError::Template { .. } | TextError::Render { .. })),
                "{shown}: {:.100}",
                format!("{result:?}")
            );
            took
        });
        // Milliseconds, on an idle machine.
        assert!(slowest.max().unwrap() < Duration::from_secs(2));
    });
}

/// Whatever the bounds let through fits the stack.
#[test]
fn template_at_nesting_limit_fits_stack() {
    on_a_small_stack(|| {
        for (before, middle, after) in [
            ("{{ ", "-", "1 }}"),
            ("{{ 1", " and 1", " }}"),
            ("{{ 1", " ** 1", " }}"),
            ("{{ 1", " % 1", " }}"),
            ("{{ messages", "[0]", " }}"),
            ("{{ 1", "|string", " }}"),
            ("{{ 1", " if 1 else 1", " }}"),
            ("{{ ", "[", "] }}"),
            ("{{ ", "[[1", " }}"),
            ("", "{% if 1 %}", "{% endif %}"),
            ("{% if 1 %}", "{% elif 1 %}", "{% endif %}"),
            ("", "{% for i in [1] %}", "{% endfor %}"),
            ("", "{% set x %}", "{% endset %}"),
        ] {
            let mut accepted = 0;
            for n in (1..500).step_by(7) {
                let closing = if after.starts_with(['{', ']']) && !before.starts_with("{{ 1") { after } else { "" };
                let source = match closing {
                    "] }}" => format!("{before}{}{} }}}}", middle.repeat(n), "]".repeat(n)),
                    "{% endif %}" | "{% endfor %}" | "{% endset %}" if before.is_empty() => {
                        format!("{}{}", middle.repeat(n), closing.repeat(n))
                    }
                    _ => format!("{before}{}{after}", middle.repeat(n)),
                };
                accepted += usize::from(render(&source, &json!([{ "role": "user", "content": "hi" }])).is_ok());
            }
            println!("{before}{middle}{after}: {accepted}");
        }
    });
}

#[test]
fn template_deep_messages_are_refused() {
    let mut deep = json!("a");
    for _ in 0..2000 {
        deep = json!([deep]);
    }
    let error = render("{{ messages }}", &json!([{ "role": "user", "content": "a", "x": deep }])).unwrap_err();
    assert!(error.to_string().contains("nest"), "{error}");
}

/// Joining copies nothing: with 20,000 messages that would take minutes.
#[test]
fn template_many_messages_of_one_role_join_in_one_pass() {
    let template = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}\
        {% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}";
    let message = json!({ "role": "user", "content": [{ "type": "text", "text": "a" }] });
    let messages = Json::Array(vec![message; 20_000]);
    let template = ChatTemplate::from_gguf(&metadata(template)).unwrap();
    assert_eq!(template.render(&messages, Options::for_answer(None)).as_deref(), Ok(&*"a".repeat(20_000)));
}
