//! What an agent may ask the model's endpoint: a few questions, each with one method and one path.

use std::fmt;
use std::str::FromStr;

use hyper::Method;
use serde::{Deserialize, Serialize};

/// A question that is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// `POST /v1/chat/completions`, of OpenAI's form.
    ChatCompletions,
    /// `POST /v1/responses`, of OpenAI's form.
    Responses,
    /// `POST /v1/messages`, of Anthropic's form.
    Messages,
    /// `GET /v1/models`, of both.
    Models,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ChatCompletions, Self::Responses, Self::Messages, Self::Models];

    /// Its path, below the version.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat/completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Models => "models",
        }
    }

    pub(super) const fn method(self) -> Method {
        match self {
            Self::Models => Method::GET,
            _ => Method::POST,
        }
    }

    /// The field that bounds what the model writes.
    pub(super) const fn limit_fields(self) -> &'static [&'static str] {
        match self {
            Self::ChatCompletions => &["max_tokens", "max_completion_tokens"],
            Self::Responses => &["max_output_tokens"],
            Self::Messages => &["max_tokens"],
            Self::Models => &[],
        }
    }

    /// The door at that path, which begins with a slash, whatever the method.
    pub(super) fn at(path: &str) -> Option<Self> {
        let below = path.strip_prefix("/v1/")?;
        Self::ALL.into_iter().find(|door| door.path() == below)
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

impl FromStr for Door {
    type Err = String;

    /// By its path, as the configuration writes it.
    fn from_str(text: &str) -> Result<Self, String> {
        let below = text.trim_start_matches('/').trim_start_matches("v1/");
        Self::ALL.into_iter().find(|door| door.path() == below).ok_or_else(|| {
            let known = Self::ALL.map(Self::path).join(", ");
            format!("'{text}' is no path of a model's endpoint that can be let through; they are {known}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_paths_are_doors() {
        assert_eq!(Door::at("/v1/chat/completions"), Some(Door::ChatCompletions));
        assert_eq!(Door::at("/v1/messages"), Some(Door::Messages));
        for path in
            ["/", "/v1", "/v1/", "/chat/completions", "/v1/files", "/v1/messages/batches", "/v1//models", "/v1/models/"]
        {
            assert_eq!(Door::at(path), None, "{path}");
        }
        assert_eq!("/v1/responses".parse(), Ok(Door::Responses));
        assert!("files".parse::<Door>().unwrap_err().contains("chat/completions"));
    }
}
