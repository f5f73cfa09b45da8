//! A remote's address in the form in which a stranger can fetch from it.

use gix::url::Scheme;

use super::CheckoutError;

/// The address of a repository as `https://host/path` or `git://host/path`, from any spelling git takes for a remote
/// (`git@host:owner/repo.git`, `ssh://git@host:2222/owner/repo`, …). A user name and a password never stand in it: the
/// address goes out to everybody.
///
/// # Errors
/// [`CheckoutError::NotPublic`] when there is no such form: a path on this machine, a name out of an SSH configuration.
pub fn public(address: &str) -> Result<String, CheckoutError> {
    let refuse = |why| Err(CheckoutError::NotPublic { address: without_secrets(address), why });
    let Ok(url) = gix::url::parse(address.trim()) else { return refuse("it can't be read") };
    let Some(host) = url.host.as_deref().filter(|host| !host.is_empty()) else {
        return refuse("it is on this machine");
    };
    let Ok(path) = std::str::from_utf8(&url.path) else { return refuse("its path is no text") };
    let path = path.trim_start_matches('/');
    if path.is_empty() || path.chars().any(char::is_control) {
        return refuse("it names no repository");
    }
    // IPv6 addresses stand in brackets in an address, and bare in gix's idea of a host.
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    let (scheme, port) = match url.scheme {
        Scheme::Https => ("https", url.port),
        Scheme::Git => ("git", url.port),
        // A port of its own is a server of its own, of which nobody knows whether it speaks https.
        Scheme::Http if url.port.is_none_or(|port| port == 80) => ("https", None),
        Scheme::Http => return refuse("plain http is not fetched"),
        // The port is that of SSH.
        Scheme::Ssh if path.starts_with('~') => return refuse("it lies in somebody's home folder"),
        Scheme::Ssh if !host.contains(['.', ':']) => return refuse("its host is a name of your SSH configuration"),
        Scheme::Ssh => ("https", None),
        Scheme::File | Scheme::Ext | Scheme::Helper(_) | Scheme::HelperUrl(_) => {
            return refuse("only https and git addresses can be fetched by others");
        }
    };
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let public = format!("{scheme}://{host}{port}/{path}");
    if url::Url::parse(&public).is_err() {
        return refuse("it can't be read");
    }
    Ok(public)
}

/// An address as it may be shown: what stands before an `@` in it may be a token.
fn without_secrets(address: &str) -> String {
    let shown: String = address.chars().filter(|c| !c.is_control()).take(200).collect();
    match (shown.find("://"), shown.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &shown[..scheme + 3], &shown[at + 1..]),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_remote_becomes_one_that_others_can_fetch() {
        for (written, public_form) in [
            ("https://example.com/owner/repo.git", "https://example.com/owner/repo.git"),
            ("https://example.com:8443/owner/repo", "https://example.com:8443/owner/repo"),
            ("http://example.com/owner/repo", "https://example.com/owner/repo"),
            ("http://example.com:80/owner/repo", "https://example.com/owner/repo"),
            ("git://example.com/owner/repo", "git://example.com/owner/repo"),
            ("git://127.0.0.1:9419/repo", "git://127.0.0.1:9419/repo"),
            ("git@example.com:owner/repo.git", "https://example.com/owner/repo.git"),
            ("example.com:owner/repo.git", "https://example.com/owner/repo.git"),
            ("git@example.com:/owner/repo.git", "https://example.com/owner/repo.git"),
            ("ssh://git@example.com/owner/repo.git", "https://example.com/owner/repo.git"),
            ("ssh://git@example.com:2222/owner/repo.git", "https://example.com/owner/repo.git"),
            ("git+ssh://git@example.com/owner/repo.git", "https://example.com/owner/repo.git"),
            (" https://example.com/owner/repo \n", "https://example.com/owner/repo"),
        ] {
            assert_eq!(public(written).as_deref().ok(), Some(public_form), "{written}");
        }
    }

    #[test]
    fn a_token_in_an_address_stays_at_home() {
        for written in [
            "https://somebody:s3cret@example.com/owner/repo",
            "https://s3cret@example.com/owner/repo",
            "https://s3cret:x-oauth-basic@example.com/owner/repo.git",
        ] {
            assert!(!public(written).unwrap().contains("s3cret"), "{written}");
        }
        let refused = public("http://somebody:s3cret@example.com:8080/owner/repo").unwrap_err();
        assert!(!refused.to_string().contains("s3cret"), "{refused}");
    }

    #[test]
    fn what_only_this_machine_can_reach_is_refused() {
        for written in [
            "",
            "/srv/git/repo.git",
            "../repo",
            "file:///srv/git/repo.git",
            "C:\\repos\\x",
            "work:owner/repo.git",
            "git@work:owner/repo.git",
            "git@example.com:~me/repo.git",
            "http://example.com:8080/owner/repo",
            "ext::sh -c id",
            "https://example.com",
            "https://example.com/",
            "ftp://example.com/owner/repo",
        ] {
            assert!(public(written).is_err(), "{written}: {:?}", public(written));
        }
    }
}
