//! Models and wallets that do what a story needs.

use std::sync::Arc;

use async_trait::async_trait;
use coinop::inference::echo::Echo;
use coinop::inference::{
    Generate, Generation, Inference, InferenceError, Message, ModelInfo, Piece, PromptTokens, TextSink,
};
use coinop::wallet::fake::FakeWallet;
use coinop::wallet::{
    Balance, Capabilities, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, PaymentHash, Wallet, WalletError,
};
use futures::stream::BoxStream;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// An echo that counts a prompt's tokens only when let.
#[derive(Clone)]
pub struct SlowToCount {
    echo: Echo,
    pub counting: Arc<Semaphore>,
    pub may_count: Arc<Semaphore>,
}

impl SlowToCount {
    pub fn new(echo: Echo) -> Self {
        Self { echo, counting: Arc::new(Semaphore::new(0)), may_count: Arc::new(Semaphore::new(0)) }
    }
}

#[async_trait]
impl Inference for SlowToCount {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.echo.models().await
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.counting.add_permits(1);
        self.may_count.acquire().await.unwrap().forget();
        self.echo.count_prompt_tokens(model, messages).await
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        self.echo.generate(request, sink, cancel).await
    }
}

/// Writes the pieces it is handed, as they are handed, and ends when there will be no more.
#[derive(Clone)]
pub struct Dictated {
    echo: Echo,
    pieces: Arc<Mutex<mpsc::Receiver<String>>>,
}

impl Dictated {
    pub fn new() -> (mpsc::Sender<String>, Self) {
        let (dictate, pieces) = mpsc::channel(1);
        (dictate, Self { echo: Echo::new(), pieces: Arc::new(Mutex::new(pieces)) })
    }
}

#[async_trait]
impl Inference for Dictated {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.echo.models().await
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.echo.count_prompt_tokens(model, messages).await
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        let mut pieces = self.pieces.lock().await;
        let (mut text, mut tokens) = (String::new(), 0);
        loop {
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                () = cancel.cancelled() => return Err(InferenceError::Cancelled),
            };
            let Some(piece) = piece else { break };
            text.push_str(&piece);
            tokens += 1;
            if let Some(sink) = &sink {
                sink.send(Piece { text: piece, tokens }).unwrap();
            }
        }
        Ok(Generation { text, ..self.echo.generate(request, None, cancel).await? })
    }
}

/// A wallet that takes every wish for an invoice and never answers it.
pub struct Unanswering(pub FakeWallet);

#[async_trait]
impl Wallet for Unanswering {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn name(&self) -> &str {
        "unanswering"
    }

    async fn create_invoice(&self, _: &InvoiceRequest) -> Result<Invoice, WalletError> {
        std::future::pending().await
    }

    async fn look_up(&self, hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        self.0.look_up(hash).await
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        self.0.updates().await
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        self.0.balance().await
    }
}
