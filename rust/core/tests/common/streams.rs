//! Authored streams, and generated ones.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{DONE, done, event, sse, with};

/// Streams that between them use every part of the decoder.
pub(crate) fn fixtures() -> Vec<(&'static str, Vec<u8>)> {
    let text = |content: &str| event(&json!({"content": content}), None);
    let finish = |reason: &str| event(&json!({}), Some(reason));
    let calls = |calls: Value| event(&json!({"tool_calls": calls}), None);
    let first = event(&json!({"role": "assistant", "content": "", "refusal": null}), None);
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3});
    let raw = |events: &[&str]| -> Vec<u8> {
        let events: Vec<String> = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        [events.concat().as_bytes(), DONE].concat()
    };
    let choice = |delta: &str| format!("{{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}");
    let deltas = |deltas: &[&str]| -> Vec<u8> {
        let events: Vec<String> = deltas.iter().map(|delta| choice(delta)).collect();
        raw(&events.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let obfuscated = |content: &str, filler: &str| with(text(content), "obfuscation", filler.into());
    let crlf = |body: Vec<u8>| String::from_utf8(body).unwrap().replace('\n', "\r\n").into_bytes();
    let cr = |body: Vec<u8>| String::from_utf8(body).unwrap().replace('\n', "\r").into_bytes();
    let plain =
        done(&[first.clone(), text("Hé"), text("llo"), text("😀\u{2028}\"\\\n"), text(""), text("!"), finish("stop")]);
    vec![
        ("crlf", crlf(plain.clone())),
        ("cr", cr(plain.clone())),
        ("byte order mark", ["\u{feff}".as_bytes(), &plain[..]].concat()),
        ("plain", plain),
        ("obfuscated", done(&[first.clone(), obfuscated("a", "x"), obfuscated("b", "yyyy"), obfuscated("", "zz"), obfuscated("c", "\"\\"), finish("stop")])),
        ("filler that is no string", done(&[first.clone(), text("z"), obfuscated("a", "x"), with(text("b"), "obfuscation", json!(1)), with(text("c"), "obfuscation", Value::Null), obfuscated("d", "x")])),
        ("filler before the text", raw(&[
            r#"{"p":"a","choices":[{"index":0,"delta":{"content":"r"}}]}"#,
            r#"{"p":"abc","choices":[{"index":0,"delta":{"content":"s"}}]}"#,
            r#"{"p":"abc","choices":[{"index":0,"delta":{"content":"t"}}]}"#,
            r#"{"p":"abc","choices":[{"index":0,"delta":{"content":"u"}}],"obfuscation":"1"}"#,
            r#"{"p":"abc","choices":[{"index":0,"delta":{"content":"v"}}],"obfuscation":"22"}"#,
        ])),
        ("escapes", deltas(&[r#"{"content":"a"}"#, r#"{"content":"\n"}"#, r#"{"content":"\u00e9\""}"#, r#"{"content":"\\"}"#, r#"{"content":"b"}"#])),
        ("halves of pairs", deltas(&[
            r#"{"content":"a"}"#, r#"{"content":"b\ud83d"}"#, r#"{"content":"\ude00"}"#, r#"{"content":"\ud83d"}"#, r#"{"content":""}"#,
            r#"{"content":"\ude00"}"#, r#"{"content":"\ud83d"}"#, r#"{"content":"x"}"#, r#"{"content":"\ude00"}"#, r#"{"content":"\ud83d"}"#,
            r#"{"content":[{"type":"text","text":"y"}]}"#, r#"{"content":"z"}"#,
        ])),
        ("escaped keys", deltas(&[r#"{"c\u006fntent":"a"}"#, r#"{"c\u006fntent":"b"}"#, r#"{"content":"c"}"#, r#"{"c\u006fntent":"d"}"#, r#"{"c\u006fntent":"e"}"#])),
        ("repeated keys", deltas(&[
            r#"{"content":"a","content":"b"}"#, r#"{"content":"a","content":"c"}"#, r#"{"content":"x","content":"d"}"#,
            r#"{"content":"x","content":null}"#, r#"{"content":"x","content":""}"#, r#"{"content":"x","content":"e"}"#,
        ])),
        ("repeated containers", raw(&[
            r#"{"choices":[{"delta":{"content":"a"}}],"choices":[{"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"choices":[{"delta":{"content":"c"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"delta":{"content":"d"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"delta":{"content":"e"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"delta":{"content":"f"}}],"choices":null}"#,
            r#"{"choices":[{"delta":{"content":"a"},"delta":{"content":"g"}}],"choices":null}"#,
        ])),
        ("changing suffixes", deltas(&[
            r#"{"content":"a"}"#, r#"{"content":"b","x":1}"#, r#"{"content":"c","x":1}"#, r#"{"content":"d","x":2}"#, r#"{"content":"e","x":null}"#,
            r#"{"content":"f","x":null}"#, r#"{"content":"g" }"#, r#"{"content":"h" }"#, r#"{"content": "i" }"#, r#"{"content":"j","role":"assistant"}"#,
            r#"{"content":"k","role":"assistant"}"#, r#"{"content":"l","refusal":""}"#, r#"{"content":"m","refusal":""}"#, r#"{"content":"n","refusal":"no"}"#,
            r#"{"content":"n","refusal":"no"}"#, r#"{"content":"o"}trailing"#,
        ])),
        ("both texts", deltas(&[
            r#"{"content":"a","reasoning_content":""}"#, r#"{"content":"b","reasoning_content":""}"#, r#"{"content":"","reasoning_content":"c"}"#,
            r#"{"content":"","reasoning_content":"d"}"#, r#"{"content":"e","reasoning_content":"d"}"#, r#"{"content":"f","reasoning_content":"d"}"#,
        ])),
        ("two names of reasoning", deltas(&[
            r#"{"content":"a"}"#, r#"{"reasoning_content":"x","reasoning":"z"}"#, r#"{"reasoning_content":"y","reasoning":"z"}"#,
            r#"{"reasoning_content":"","reasoning":"z"}"#, r#"{"reasoning_content":"","reasoning":"w"}"#, r#"{"reasoning_content":null,"reasoning":"w"}"#,
        ])),
        ("reasoning details", deltas(&[
            r#"{"content":"","reasoning":"a","reasoning_details":[{"type":"reasoning.text","text":"a","index":0}]}"#,
            r#"{"content":"","reasoning":"b","reasoning_details":[{"type":"reasoning.text","text":"b","index":0}]}"#,
            r#"{"content":"","reasoning":"b","reasoning_details":[{"type":"reasoning.text","text":"b","index":0}]}"#,
            r#"{"reasoning_details":[{"type":"reasoning.text","text":"c","index":0}]}"#,
            r#"{"reasoning_details":[{"type":"reasoning.text","signature":"s","index":0}]}"#,
        ])),
        ("changing ids", done(&[text("a"), with(text("b"), "id", "other".into()), with(text("c"), "id", "other".into()), with(text("d"), "id", "third".into()), text("e"), text("f")])),
        ("an extra on every event", done(&[with(text("a"), "provider", "Acme".into()), with(text("b"), "provider", "Acme".into()), with(text(""), "provider", "Acme".into()), with(text("c"), "provider", "Acme".into()), with(text("c"), "provider", "Else".into())])),
        ("log probabilities", done(&[
            json!({"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "a"}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"content": "c"}, "logprobs": null}]}),
            json!({"choices": [{"index": 0, "delta": {"content": "d"}, "logprobs": null}]}),
        ])),
        ("interleaved choices", done(&(0..12).map(|n| json!({"choices": [{"index": n % 3 / 2, "delta": {"content": format!("t{n}")}}]})).collect::<Vec<_>>())),
        ("copies beside the delta", done(&["a", "b", "b", "c"].map(|t| json!({"choices": [{"index": 0, "delta": {"content": t}, "text": t, "message": {"content": "whole"}}]})))),
        ("legacy text", done(&["a", "b", "", "c"].map(|t| json!({"choices": [{"index": 0, "text": t, "logprobs": null}]})))),
        ("tool calls", done(&[
            first.clone(),
            calls(json!([{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}])),
            calls(json!([{"index": 0, "function": {"arguments": "{\"x\""}}])),
            calls(json!([{"index": 0, "function": {"arguments": ":1"}}])),
            calls(json!([{"index": 0, "function": {"arguments": ""}}])),
            calls(json!([{"index": 0, "function": {"arguments": "}"}}])),
            calls(json!([{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}])),
            calls(json!([{"index": 1, "function": {"arguments": "[1"}}])),
            calls(json!([{"index": 0, "function": {"arguments": " "}}])),
            calls(json!([{"index": 1, "function": {"arguments": ",2"}}])),
            calls(json!([{"index": 1, "function": {"arguments": "]"}}])),
            calls(json!([{"index": 1, "function": {"arguments": " "}, "x": 1}])),
            calls(json!([{"index": 1, "function": {"arguments": " "}, "x": 1}])),
            finish("tool_calls"),
        ])),
        ("tool calls that say everything on each piece", done(&["{", "\"x\"", ":1", "}"].map(|t| {
            calls(json!([{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": t}}]))
        }))),
        ("tool calls without a beginning", done(&["{", "\"x\"", ":1", "}"].map(|t| calls(json!([{"index": 0, "function": {"arguments": t}}]))))),
        ("tool calls without an index", done(&[
            calls(json!([{"id": "a", "function": {"name": "f", "arguments": "1"}}])), calls(json!([{"function": {"arguments": "2"}}])),
            calls(json!([{"function": {"arguments": "3"}}])), calls(json!([{"id": "b", "function": {"name": "g", "arguments": "4"}}])),
            calls(json!([{"function": {"arguments": "5"}}])), calls(json!([{"function": {"arguments": "6"}}])),
        ])),
        ("tool calls with text beside them", done(&["1", "2", "3"].map(|t| event(&json!({"content": "same", "tool_calls": [{"index": 0, "function": {"arguments": t}}]}), None)))),
        ("custom tools", done(&["", "ls", " -l"].map(|t| calls(json!([{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": t}}]))))),
        ("half a pair in arguments", deltas(&[
            r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}"#, r#"{"tool_calls":[{"index":0,"function":{"arguments":"x"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"\ud83d"}}]}"#, r#"{"tool_calls":[{"index":0,"function":{"arguments":"\ude00"}}]}"#,
        ])),
        ("audio", done(&[event(&json!({"audio": {"id": "a"}}), None), event(&json!({"audio": {"data": "QQ=="}}), None), event(&json!({"audio": {"data": "Qg=="}}), None), event(&json!({"audio": {"transcript": "hi"}}), None)])),
        ("usage on every event", done(&(1..6).map(|n| with(text("a"), "usage", json!({"prompt_tokens": 3, "completion_tokens": n}))).collect::<Vec<_>>())),
        ("null usage on every event", done(&["a", "b", "c"].map(|t| with(text(t), "usage", Value::Null)))),
        ("usage at the end", [sse(&[text("a"), finish("stop")]), sse(&[with(with(text(""), "choices", json!([])), "usage", usage.clone())])].concat()),
        ("text after the finish", done(&[text("a"), finish("stop"), text("b"), text("c"), with(finish("stop"), "usage", usage)])),
        ("whole message last", sse(&[text("a"), text("b"), json!({"choices": [{"index": 0, "message": {"content": "ab"}, "finish_reason": "stop"}]})])),
        ("an error between", sse(&[text("a"), text("b"), json!({"error": {"message": "boom"}}), text("c")])),
        ("an error beside text", sse(&[text("a"), text("b"), with(text("c"), "error", "boom".into()), text("d")])),
        ("a named event", [sse(&[text("a"), text("b")]), format!("event: message\ndata: {}\n\nevent: error\ndata: {}\n\n", text("c"), text("d")).into_bytes()].concat()),
        ("prose", [sse(&[text("a")]), b"event: error\ndata: overloaded\n\n".to_vec()].concat()),
        ("broken", [sse(&[text("a"), text("b")]), b"data: {\"id\":\n\n".to_vec()].concat()),
        ("cut", sse(&[text("a"), text("b")])),
        ("cut inside an event", [sse(&[text("a"), finish("stop")]), b"data: {\"id\"".to_vec()].concat()),
        ("an unfinished event", [sse(&[text("a")]), format!("data: {}", finish("stop")).into_bytes()].concat()),
        ("an unfinished event and no finish", [sse(&[text("a")]), format!("data: {}", text("b")).into_bytes()].concat()),
        ("a stray line", [sse(&[text("a")]), b"error: {\"message\":\"x\"}\n\n".to_vec()].concat()),
        ("comments", b": ping\n\n: ping\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n: ping\n\nretry: 10\nid: 4\n\ndata:[DONE]\n\n".to_vec()),
        ("data over several lines", b"data: {\"choices\":\ndata: [{\"delta\":\ndata: {\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n".to_vec()),
        ("invalid utf-8", [&b"data: {\"choices\":[{\"delta\":{\"content\":\"a\xFF\xE2\x82\"}}]}\n\n"[..], b"data: {\"choices\":[{\"delta\":{\"content\":\"\xAC\"}}]}\n\n", DONE].concat()),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\n\n".to_vec()),
        ("nothing", Vec::new()),
    ]
}

/// Events that differ a little from one to the next, in ways that matter and in ways that do not.
pub(crate) fn generated() -> impl Strategy<Value = Vec<u8>> {
    let string = prop_oneof![
        "[a-c]{0,2}",
        Just("\\n".to_owned()),
        Just("\\ud83d".to_owned()),
        Just("\\ude00".to_owned()),
        Just("é".to_owned()),
        Just(String::new())
    ];
    let value = prop_oneof![4 => string.prop_map(|text| format!("\"{text}\"")), 1 => Just("null".to_owned())];
    let field = (
        prop_oneof![
            Just("content"),
            Just("c\\u006fntent"),
            Just("reasoning"),
            Just("reasoning_content"),
            Just("refusal"),
            Just("role"),
            Just("x")
        ],
        value.clone(),
    );
    let call = (prop::option::of(0..2u8), prop::option::of("[ab]?"), prop::option::of("[fg]?"), value.clone())
        .prop_map(|(index, id, name, arguments)| {
            let index = index.map_or(String::new(), |index| format!("\"index\":{index},"));
            let id = id.map_or(String::new(), |id| format!("\"id\":\"{id}\","));
            let name = name.map_or(String::new(), |name| format!("\"name\":\"{name}\","));
            format!("\"tool_calls\":[{{{index}{id}\"function\":{{{name}\"arguments\":{arguments}}}}}]")
        });
    let fields = prop_oneof![
        5 => prop::collection::vec(field, 0..3).prop_map(|fields| {
            fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>().join(",")
        }),
        3 => call,
    ];
    let event = (
        fields,
        prop_oneof![8 => Just(""), 1 => Just(",\"finish_reason\":\"stop\""), 1 => Just(",\"logprobs\":{\"content\":[1]}"), 1 => Just(",\"seed\":1")],
        prop_oneof![8 => Just(""), 1 => Just(",\"usage\":{\"prompt_tokens\":1}"), 1 => Just(",\"usage\":null"), 1 => Just(",\"system_fingerprint\":\"f\"")],
        prop_oneof![4 => Just(String::new()), 1 => value.prop_map(|value| format!(",\"obfuscation\":{value}"))],
        prop_oneof![9 => 0..1u8, 1 => 0..3u8],
        1..4usize,
    )
        .prop_map(|(delta, choice, top, filler, index, times)| {
            format!("data: {{\"id\":\"i\",\"choices\":[{{\"index\":{index},\"delta\":{{{delta}}}{choice}}}]{top}{filler}}}\n\n").repeat(times)
        });
    (prop::collection::vec(event, 1..12), any::<bool>()).prop_map(|(events, marked)| {
        let mut body = events.concat().into_bytes();
        if marked {
            body.extend_from_slice(DONE);
        }
        body
    })
}
