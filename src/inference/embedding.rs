//! Texts as vectors: what a backend may be asked for at once, and what is believed of its answer.
//!
//! The rule: as many vectors as texts and in their order, all of one length, every number finite. What a server answers
//! otherwise is a failure, because nobody could find the mistake in an index later.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::http::{Server, Trouble};
use super::{InferenceError, ModelInfo, told};

/// Texts that can be asked for at once.
pub const MOST_TEXTS: usize = 256;

/// Bytes of all texts that are asked for at once.
pub const MOST_BATCH_BYTES: usize = 1024 * 1024;

/// The most numbers a vector has: the largest models known make some 8,000.
pub const MOST_DIMENSIONS: usize = 16_384;

/// Texts of one request to a server. Some take no more than this; and what was read when a job is cancelled is not much.
pub(super) const TEXTS_A_REQUEST: usize = 32;

/// Tokens that a model may put around a text.
const TOKENS_AROUND_A_TEXT: usize = 8;

/// Vectors of texts.
#[derive(Clone, PartialEq)]
pub struct Embeddings {
    /// The model's name.
    pub model: String,
    /// Numbers of each vector, at least 1.
    pub dimension: usize,
    /// One for each text, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that were read, by the backend's own count.
    pub tokens: u32,
    /// The model's parameter count when known.
    pub parameters: Option<u64>,
    /// Its digest when known, see [`ModelInfo::digest`].
    pub digest: Option<String>,
}

impl fmt::Debug for Embeddings {
    /// Texts can be guessed from their vectors: those stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embeddings")
            .field("model", &self.model)
            .field("dimension", &self.dimension)
            .field("vectors", &self.vectors.len())
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

/// Whether these texts can be asked for at once.
///
/// # Errors
/// [`InferenceError::BadRequest`], saying which text is wrong.
pub(super) fn check_texts(texts: &[String]) -> Result<(), InferenceError> {
    let wrong = |what: String| Err(InferenceError::BadRequest(what));
    if texts.is_empty() || texts.len() > MOST_TEXTS {
        return wrong(format!("{} texts: ask for 1 to {MOST_TEXTS} at once", texts.len()));
    }
    if let Some(at) = texts.iter().position(|text| text.trim().is_empty()) {
        return wrong(format!("text {at} is empty"));
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > MOST_BATCH_BYTES {
        return wrong(format!("the texts have {bytes} bytes: ask for at most {MOST_BATCH_BYTES} at once"));
    }
    Ok(())
}

/// Puts the answers to several requests together, each checked as it comes.
#[derive(Default)]
pub(super) struct Gathered {
    vectors: Vec<Vec<f32>>,
    tokens: u32,
}

impl Gathered {
    /// Takes the vectors of the next `texts`, for which the server says it read `tokens`. Above what texts of that size can
    /// have it is not believed.
    ///
    /// # Errors
    /// [`InferenceError::Backend`] when they are not what was asked for.
    pub(super) fn take(&mut self, texts: &[String], vectors: Vec<Vec<f32>>, tokens: u32) -> Result<(), InferenceError> {
        let wrong =
            |what: String| Err(InferenceError::Backend(format!("its answer is not of the form expected: {what}")));
        if vectors.len() != texts.len() {
            return wrong(format!("{} vectors for {} texts", vectors.len(), texts.len()));
        }
        let dimension = self.vectors.first().or(vectors.first()).map_or(0, Vec::len);
        if !(1..=MOST_DIMENSIONS).contains(&dimension) {
            return wrong(format!("vectors of {dimension} numbers"));
        }
        if vectors.iter().any(|vector| vector.len() != dimension) {
            return wrong("vectors of different lengths".to_owned());
        }
        if vectors.iter().flatten().any(|number| !number.is_finite()) {
            return wrong("a number that is none".to_owned());
        }
        let most = texts.iter().map(|text| text.len() + TOKENS_AROUND_A_TEXT).sum::<usize>();
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        self.vectors.extend(vectors);
        self.tokens = self.tokens.saturating_add(tokens.min(most));
        Ok(())
    }

    /// All of them, made by that model.
    pub(super) fn by(self, model: &ModelInfo) -> Embeddings {
        Embeddings {
            model: model.name.clone(),
            dimension: self.vectors.first().map_or(0, Vec::len),
            vectors: self.vectors,
            tokens: self.tokens,
            parameters: model.parameters,
            digest: model.digest.clone(),
        }
    }
}

/// What is asked in OpenAI's form.
#[derive(Serialize)]
struct Asked<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
}

/// What is answered in OpenAI's form.
#[derive(Deserialize)]
struct Answered {
    data: Vec<Item>,
    usage: Used,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Used {
    #[serde(default, deserialize_with = "told::tokens")]
    prompt_tokens: Option<u32>,
}

/// Asks for the vectors of some texts in OpenAI's form, at `path`. Not checked yet, but in the texts' order. A server that does
/// not say what it read is of no use: its answers have no price.
pub(super) async fn ask(
    server: &Server,
    path: &str,
    model: &str,
    texts: &[String],
) -> Result<(Vec<Vec<f32>>, u32), Trouble> {
    let asked = Asked { model, input: texts, encoding_format: "float" };
    let Answered { data, usage } = server.post_for_work::<Answered>(path, &asked).await?;
    let tokens = usage.prompt_tokens.ok_or(Trouble::Garbage("it does not say how many tokens it read"))?;
    Ok((in_order(data)?, tokens))
}

/// Items may come in any order, but each once.
fn in_order(items: Vec<Item>) -> Result<Vec<Vec<f32>>, Trouble> {
    let mut places: Vec<Option<Vec<f32>>> = items.iter().map(|_| None).collect();
    for (at, item) in items.into_iter().enumerate() {
        let place = places.get_mut(item.index.unwrap_or(at)).filter(|place| place.is_none());
        *place.ok_or(Trouble::Garbage("the places of its vectors are wrong"))? = Some(item.embedding);
    }
    Ok(places.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("text {number}")).collect()
    }

    fn taken(vectors: Vec<Vec<f32>>) -> Result<Gathered, InferenceError> {
        let mut gathered = Gathered::default();
        gathered.take(&texts(2), vectors, 4).map(|()| gathered)
    }

    #[test]
    fn what_can_be_asked_at_once_is_bounded() {
        assert_eq!(check_texts(&texts(1)), Ok(()));
        assert_eq!(check_texts(&texts(MOST_TEXTS)), Ok(()));
        let large = vec!["x".repeat(MOST_BATCH_BYTES / 2), "y".repeat(MOST_BATCH_BYTES / 2 + 1)];
        for wrong in [Vec::new(), texts(MOST_TEXTS + 1), vec!["a".into(), " \n".into()], large] {
            assert!(matches!(check_texts(&wrong), Err(InferenceError::BadRequest(_))));
        }
    }

    #[test]
    fn vectors_that_are_not_what_was_asked_for_are_a_failure() {
        assert!(taken(vec![vec![1.0, 2.0], vec![0.0, -1.0]]).is_ok());
        for wrong in [
            Vec::new(),
            vec![vec![1.0]],
            vec![vec![1.0], vec![1.0], vec![1.0]],
            vec![vec![1.0], vec![1.0, 2.0]],
            vec![Vec::new(), Vec::new()],
            vec![vec![1.0], vec![f32::NAN]],
            vec![vec![f32::INFINITY], vec![1.0]],
            vec![vec![0.0; MOST_DIMENSIONS + 1], vec![0.0; MOST_DIMENSIONS + 1]],
        ] {
            assert!(matches!(taken(wrong), Err(InferenceError::Backend(_))));
        }
    }

    #[test]
    fn a_later_answer_has_the_length_of_the_first() {
        let mut gathered = taken(vec![vec![1.0, 2.0], vec![0.0, 1.0]]).unwrap_or_default();
        let other = gathered.take(&texts(1), vec![vec![1.0]], 1);
        assert!(matches!(other, Err(InferenceError::Backend(_))));
    }

    #[test]
    fn tokens_that_texts_cannot_have_are_not_billed() {
        let mut gathered = Gathered::default();
        gathered.take(&["abc".to_owned()], vec![vec![1.0]], u32::MAX).unwrap();
        assert_eq!(gathered.by(&ModelInfo::named("m")).tokens, 3 + 8);
    }

    #[test]
    fn items_are_put_into_their_places() {
        let item = |index, number| Item { index, embedding: vec![number] };
        let order = |items| in_order(items).map(|vectors| vectors.concat());
        assert_eq!(order(vec![item(Some(1), 1.0), item(Some(0), 0.0)]).unwrap(), [0.0, 1.0]);
        assert_eq!(order(vec![item(None, 1.0), item(None, 0.0)]).unwrap(), [1.0, 0.0]);
        assert!(order(vec![item(Some(0), 1.0), item(Some(0), 0.0)]).is_err());
        assert!(order(vec![item(Some(2), 1.0), item(Some(0), 0.0)]).is_err());
        assert!(order(vec![item(Some(usize::MAX), 1.0)]).is_err());
    }
}
