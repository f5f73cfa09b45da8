//! The limit: a provider that does nothing but check the request's signature and sign the answer. No database, no second
//! thought.

use anyhow::{Context, Result};
use futures::{SinkExt, StreamExt};
use nostr::{ClientMessage, EventBuilder, Filter, JsonUtil, Keys, Kind, RelayMessage, SubscriptionId, Tag};
use tokio_tungstenite::tungstenite::Message;

use crate::child;
use crate::customers::{REQUEST_KIND, RESULT_KIND, connect};

/// Serves until the bench asks to end. `task` is the relay's address in JSON.
pub(crate) fn serve(task: &str) -> Result<()> {
    let relay: String = serde_json::from_str(task)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let serving = tokio::spawn(answer(relay));
        tokio::select! {
            ended = serving => ended?,
            () = child::asked_to_end() => Ok(()),
        }
    })
}

async fn answer(relay: String) -> Result<()> {
    let keys = Keys::generate();
    let (mut sink, mut source) = connect(&relay).await?.split();
    let wanted = Filter::new().kind(Kind::from_u16(REQUEST_KIND));
    sink.send(Message::text(ClientMessage::req(SubscriptionId::new("jobs"), vec![wanted]).as_json())).await?;
    while let Some(message) = source.next().await {
        let Message::Text(text) = message? else { continue };
        match RelayMessage::from_json(text.as_bytes())? {
            RelayMessage::EndOfStoredEvents(_) => child::ready("echo")?,
            RelayMessage::Event { event: request, .. } => {
                request.verify()?;
                let prompt = request.tags.iter().find(|tag| tag.as_slice().first().is_some_and(|name| name == "i"));
                let prompt = prompt.and_then(|tag| tag.content()).context("a request without an input")?;
                let result = EventBuilder::new(Kind::from_u16(RESULT_KIND), prompt)
                    .tags([
                        Tag::parse(["request", &request.as_json()])?,
                        Tag::event(request.id),
                        Tag::public_key(request.pubkey),
                    ])
                    .sign_with_keys(&keys)?;
                sink.send(Message::text(ClientMessage::event(result).as_json())).await?;
            }
            _ => {}
        }
    }
    Ok(())
}
