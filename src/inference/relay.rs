//! Listening in on an answer as it is written.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Generate, Generation, Inference, InferenceError, Piece, TextSink};

/// Generates with `backend`; each piece is shown to `seen` and handed on to `sink`, when there is one. Where nobody wants
/// pieces, they are still seen.
pub(super) async fn generate(
    backend: &dyn Inference,
    request: &Generate,
    sink: Option<&TextSink>,
    cancel: &CancellationToken,
    mut seen: impl FnMut(&Piece) + Send,
) -> Result<Generation, InferenceError> {
    let mut pass_on = |piece: Piece| {
        seen(&piece);
        if let Some(sink) = sink {
            // Nobody has to read.
            let _ = sink.send(piece);
        }
    };
    let (ours, mut pieces) = mpsc::unbounded_channel();
    let mut running = backend.generate(request, Some(ours), cancel);
    let done = loop {
        tokio::select! {
            biased;
            Some(piece) = pieces.recv() => pass_on(piece),
            done = &mut running => break done,
        }
    };
    while let Ok(piece) = pieces.try_recv() {
        pass_on(piece);
    }
    done
}
