//! What an answer rests on, as OpenAI's annotations.

use crate::json::{Result, Value};

/// What has come of an answer's text and of its annotations.
#[derive(Debug, Default)]
pub(super) struct Cited {
    /// Bytes of text so far.
    len: usize,
    /// Where bytes stand that begin no character.
    inner: Vec<usize>,
    /// Annotations given: the same grounding may come with several events.
    given: Vec<Value<'static>>,
}

impl Cited {
    pub(super) fn add_text(&mut self, text: &str) {
        if !text.is_ascii() {
            let inner = text.bytes().enumerate().filter(|(_, byte)| byte & 0xC0 == 0x80);
            self.inner.extend(inner.map(|(at, _)| self.len + at));
        }
        self.len += text.len();
    }

    /// Places are told in bytes of UTF-8 (in a recorded answer with dashes in it they are), and wanted in characters.
    fn characters(&self, bytes: i64) -> Value<'static> {
        let bytes = usize::try_from(bytes).unwrap_or(0);
        let inner = self.inner.partition_point(|at| *at < bytes);
        Value::Number((bytes - inner).to_string().into())
    }

    /// The new annotations, as the text of a JSON array: one for every place in the text and every page on the web that
    /// supports it. What has no address stays in the metadata alone.
    pub(super) fn annotations(
        &mut self,
        grounding: Option<&[u8]>,
        citations: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>> {
        let mut found = Vec::new();
        if let Some(grounding) = grounding {
            let grounding = Value::parse(grounding)?;
            let chunks = list(&grounding, "groundingChunks");
            for support in list(&grounding, "groundingSupports") {
                let Some(segment) = support.get("segment") else {
                    continue;
                };
                for index in list(support, "groundingChunkIndices") {
                    let chunk = index.as_i64().and_then(|index| chunks.get(usize::try_from(index).ok()?));
                    let source = ["web", "maps", "retrievedContext"].iter().find_map(|kind| chunk?.get(kind));
                    found.extend(source.and_then(|source| self.annotation(segment, source)));
                }
            }
        }
        if let Some(citations) = citations {
            let citations = Value::parse(citations)?;
            for name in ["citations", "citationSources"] {
                found.extend(list(&citations, name).iter().filter_map(|citation| self.annotation(citation, citation)));
            }
        }
        found.retain(|annotation| !self.given.contains(annotation));
        if found.is_empty() {
            return Ok(None);
        }
        self.given.extend(found.iter().cloned());
        let mut json = Vec::new();
        Value::Array(found).write(&mut json);
        Ok(Some(json))
    }

    fn annotation(&self, place: &Value<'_>, source: &Value<'_>) -> Option<Value<'static>> {
        let url = source.get("uri").and_then(Value::as_str)?;
        // A zero is left out.
        let start = place.get("startIndex").and_then(Value::as_i64).unwrap_or(0);
        let end = place.get("endIndex").and_then(Value::as_i64)?;
        let title = source.get("title").and_then(Value::as_str).unwrap_or_default();
        let citation = vec![
            ("start_index".into(), self.characters(start)),
            ("end_index".into(), self.characters(end)),
            ("url".into(), Value::String(url.to_owned().into())),
            ("title".into(), Value::String(title.to_owned().into())),
        ];
        Some(Value::Object(vec![
            ("type".into(), Value::String("url_citation".into())),
            ("url_citation".into(), Value::Object(citation)),
        ]))
    }
}

fn list<'v, 'a>(value: &'v Value<'a>, name: &str) -> &'v [Value<'a>] {
    match value.get(name) {
        Some(Value::Array(items)) => items,
        _ => &[],
    }
}
