//! The server of files: is it there.

use std::time::Duration;

use super::Finding;
use crate::blossom::{Blossom, BlossomConfig};
use crate::config::FileSettings;
use crate::identity::Signer;
use crate::nip90::{Codec, ReadLimits};

/// Asks the server for a file that nobody has. What it answers does not matter: whether it takes ours only an upload shows,
/// and a file that is put there stays.
pub(super) async fn answers(files: &FileSettings, patience: Duration) -> Finding {
    let check = "files";
    let server = files.server.as_str();
    // Nothing is signed for a look.
    let nobody = Codec::new(Signer::random(), ReadLimits::default());
    let answered = match Blossom::new(BlossomConfig::new(files.server.clone()), nobody) {
        Ok(client) => client.answers(patience).await,
        Err(error) => return Finding::failed(check, error.to_string(), "correct files.server").about(server),
    };
    let found = match answered {
        Ok(status) => Finding::ok(check, format!("the file server answers (status {status})")),
        Err(error) => Finding::warning(
            check,
            format!("{error}: texts are cut, files of runs are missing, and other large results fail at no charge"),
            "start the server, or correct files.server; \"\" does without one (docs/files.md)",
        ),
    };
    found.about(server)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::testing::blossom_server::BlossomServer;

    fn at(server: url::Url) -> FileSettings {
        FileSettings { server, max_bytes: 1_000 }
    }

    #[tokio::test]
    async fn a_file_server_that_answers_is_there_whatever_it_says() {
        let server = BlossomServer::start().await.unwrap();
        let found = answers(&at(server.url()), Duration::from_secs(60)).await;
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
        assert!(found.finding.contains("404"), "it was asked for a file: {found:?}");
        assert_eq!(server.uploads(), 0, "nothing is left there");
    }

    #[tokio::test]
    async fn a_file_server_that_is_gone_or_silent_is_a_warning_that_says_what_comes_of_it() {
        let server = BlossomServer::start().await.unwrap();
        let url = server.url();
        drop(server);
        let found = answers(&at(url.clone()), Duration::from_secs(60)).await;
        assert_eq!((found.verdict, found.subject.as_deref()), (Verdict::Warning, Some(url.as_str())), "{found:?}");
        assert!(found.finding.contains("can't be reached") && found.finding.contains("texts are cut"), "{found:?}");
        assert!(found.cure.is_some());

        // A port whose connections wait for ever: nobody takes them.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url: url::Url = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
        let found = answers(&at(url), Duration::from_millis(50)).await;
        assert_eq!(found.verdict, Verdict::Warning, "{found:?}");
        assert!(found.finding.contains("took longer than"), "{found:?}");
    }
}
