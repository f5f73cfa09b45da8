//! What is passed on, what is not, and what is counted.

use super::*;
use crate::inference::echo::Echo;
use crate::testing::openai_server::{Manners, OpenAiServer};

#[tokio::test]
async fn a_question_goes_on_with_the_operators_key_and_nothing_of_the_cells() {
    let server = chatting().await;
    let proxy = proxy(&server.url(), PLENTY, ProxyBounds::default());
    let mut relay = Relay::of(&proxy).await;
    let body = json!({"model": "other", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let said = format!(
        "POST /v1/chat/completions?x=y HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\nAuthorization: Bearer stolen\r\n\
         X-Api-Key: stolen\r\nCookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\nUser-Agent: agent\r\nanthropic-beta: x\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let reply = relay.ask(said).await;
    assert_eq!((reply.status, &reply.json()["choices"][0]["message"]["content"]), (200, &json!("hello")));
    assert!(!reply.head.contains("cookie") && !reply.head.contains("x-request-id"), "{}", reply.head);
    let heard = server.heard().remove(0);
    let head = heard.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/chat/completions http/1.1\r\n"), "{head}");
    assert!(heard.contains(&format!("authorization: Bearer {KEY}\r\n")), "{heard}");
    for not in ["stolen", "evil.example", "cookie", "1.2.3.4", "user-agent: agent", "anthropic", "x=y"] {
        assert!(!head.contains(not), "{not} in {head}");
    }
    let asked: Value = serde_json::from_str(heard.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(asked, json!({"model": "fixed", "messages": [{"role": "user", "content": "hi"}]}));
    assert_eq!((proxy.budget.usage(), proxy.budget.requests()), (crate::job::Usage::tokens(7, 3), 1));
}

#[tokio::test]
async fn an_answer_in_events_passes_as_it_is_and_is_counted() {
    let server = OpenAiServer::start(
        Arc::new(Echo::new()),
        Manners { key: Some(KEY.into()), bytewise: true, ..Manners::default() },
    );
    let server = server.await.unwrap();
    let proxy = proxy_with(&server.root(), PLENTY, ProxyBounds::default(), KeyHeader::Bearer, Some("echo"));
    let mut relay = Relay::of(&proxy).await;
    let asked = json!({"model": "x", "messages": [{"role": "user", "content": "one two three"}], "stream": true});
    let reply = relay.chat(&asked).await;
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("content-type: text/event-stream"), "{}", reply.head);
    assert!(reply.body.contains("[DONE]") && reply.body.contains("three"), "{}", reply.body);
    assert_eq!(proxy.budget.usage(), crate::job::Usage::tokens(3, 3));
    let lines = lines(&proxy.journal.finish(&[]));
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["event"], &lines[0]["path"], &lines[0]["whole"]),
        (&json!("asked"), &json!("chat/completions"), &json!(true))
    );
    assert_eq!((&lines[0]["prompt_tokens"], &lines[0]["generated_tokens"]), (&json!(3), &json!(3)));
    assert_eq!(lines[0]["request"]["sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn nothing_else_is_there() {
    let server = chatting().await;
    let proxy = proxy(&server.url(), PLENTY, ProxyBounds::default());
    let mut relay = Relay::of(&proxy).await;
    let chat = json!({"messages": []});
    for (said, status) in [
        (get("/"), 404),
        (get("/v1/files"), 404),
        (get("/v1/../admin"), 404),
        (get("/v1/models/x"), 404),
        (get("/v1/chat/completions"), 405),
        (post("/v1/models", &chat), 405),
        (post("/v1/embeddings", &chat), 404),
        (post("/chat/completions", &chat), 404),
        (post("http://evil.example/v1/chat/completions", &chat), 404),
        ("CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n".into(), 404),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".into(), 404),
        (get("/v1/models").replace("GET", "DELETE"), 405),
        (post("/v1/chat/completions", &chat).replace("host: x", "host: x\r\ncontent-encoding: gzip"), 415),
        (post("/v1/chat/completions", &json!([])), 400),
        (post("/v1/responses", &json!({"previous_response_id": "x"})), 400),
    ] {
        let reply = relay.ask(&said).await;
        assert_eq!(reply.status, status, "{said}");
        assert!(!reply.json()["error"]["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(server.asked(), [""; 0]);
}

#[tokio::test]
async fn doors_that_are_shut_lead_nowhere() {
    let server = chatting().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let upstream = Upstream::new(&server.url(), None, KeyHeader::Bearer, ServerOptions::default()).unwrap();
    let bounds = ProxyBounds::default();
    let proxy = Arc::new(Proxy::new(Arc::new(upstream), vec![Door::Messages], None, Budget::new(PLENTY), bounds));
    let mut relay = Relay::of(&proxy).await;
    let reply = relay.chat(&json!({"model": "m", "messages": []})).await;
    assert_eq!(reply.status, 404);
    assert!(reply.body.contains("POST /v1/messages") && !reply.body.contains("chat"), "{}", reply.body);
}

#[tokio::test]
async fn anthropics_form_gets_its_own_header_and_keeps_its_version() {
    let answer = json!({"content": [], "usage": {"input_tokens": 5, "output_tokens": 2}});
    let server = endpoint("200 OK\r\ncontent-type: application/json", answer.to_string()).await;
    let proxy = proxy_with(&server.url(), PLENTY, ProxyBounds::default(), KeyHeader::XApiKey, None);
    let mut relay = Relay::of(&proxy).await;
    let asked = post("/v1/messages?beta=true", &json!({"model": "own", "max_tokens": 99_999, "messages": []}));
    let asked = asked
        .replace("host: x", "host: x\r\nanthropic-version: 2023-06-01\r\nanthropic-beta: a-1\r\nx-api-key: stolen");
    assert_eq!(relay.ask(asked).await.status, 200);
    let heard = server.heard().remove(0);
    for has in [
        &format!("x-api-key: {KEY}\r\n"),
        "anthropic-version: 2023-06-01\r\n",
        "anthropic-beta: a-1\r\n",
        "\"max_tokens\":10000",
    ] {
        assert!(heard.contains(has), "no {has} in {heard}");
    }
    assert!(!heard.contains("stolen") && !heard.contains("beta=true"));
    assert_eq!(proxy.model().as_deref(), Some("own"));
    assert_eq!(proxy.budget.usage(), crate::job::Usage::tokens(5, 2));
}

#[tokio::test]
async fn nobody_is_followed_elsewhere() {
    let elsewhere = chatting().await;
    let redirect: &'static str = format!("307 Temporary Redirect\r\nlocation: {}", elsewhere.url()).leak();
    let server = endpoint(redirect, "").await;
    let proxy = proxy(&server.url(), PLENTY, ProxyBounds::default());
    let reply = Relay::of(&proxy).await.chat(&json!({"messages": []})).await;
    assert_eq!((reply.status, reply.kind().as_str()), (502, "api_error"));
    assert!(!reply.head.contains("location"));
    assert_eq!(elsewhere.asked(), [""; 0]);
}

#[tokio::test]
async fn an_endpoints_trouble_with_us_is_not_the_cells_business() {
    for (head, body) in [
        ("401 Unauthorized\r\ncontent-type: application/json", format!("{{\"error\":\"wrong key {KEY}\"}}")),
        ("403 Forbidden\r\ncontent-type: text/html", "<html>".into()),
        ("402 Payment Required\r\ncontent-type: application/json", "{}".into()),
        ("400 Bad Request\r\ncontent-type: application/json", format!("{{\"error\":\"key {KEY} may not\"}}")),
        ("200 OK\r\ncontent-type: application/json", format!("{{\"echo\":\"{KEY}\"}}")),
        ("200 OK\r\ncontent-type: text/html", "<html>It works!".into()),
        ("204 No Content", String::new()),
    ] {
        let server = endpoint(head, body).await;
        let proxy = proxy(&server.url(), PLENTY, ProxyBounds::default());
        let reply = Relay::of(&proxy).await.chat(&json!({"messages": []})).await;
        assert_eq!((reply.status, reply.kind().as_str()), (502, "api_error"), "{head}");
        assert!(!reply.body.contains(KEY));
        let journal = proxy.journal.finish(&[]);
        assert!(!journal.contains(KEY), "{journal}");
    }
    let nobody = "http://127.0.0.1:1/".parse().unwrap();
    let proxy = proxy(&nobody, PLENTY, ProxyBounds::default());
    assert_eq!(Relay::of(&proxy).await.chat(&json!({"messages": []})).await.status, 502);
}

#[tokio::test]
async fn what_an_endpoint_says_of_the_question_is_passed_on() {
    let words = json!({"error": {"message": "too fast"}});
    let server =
        endpoint("429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 7", words.to_string()).await;
    let proxy = proxy(&server.url(), PLENTY, ProxyBounds::default());
    let reply = Relay::of(&proxy).await.chat(&json!({"messages": []})).await;
    assert_eq!((reply.status, reply.json()), (429, words));
    assert!(reply.head.contains("retry-after: 7"), "{}", reply.head);
    assert_eq!(proxy.budget.usage(), crate::job::Usage::default());
    let server = endpoint("500 Internal Server Error\r\ncontent-type: text/plain", "stack trace at /srv/secret").await;
    let proxy = self::proxy(&server.url(), PLENTY, ProxyBounds::default());
    let reply = Relay::of(&proxy).await.chat(&json!({"messages": []})).await;
    assert_eq!(reply.status, 500);
    assert!(!reply.body.contains("secret"), "{}", reply.body);
}

#[tokio::test]
async fn a_fixed_model_is_the_only_one_that_is_listed() {
    let server = chatting().await;
    let mut relay = Relay::of(&proxy(&server.url(), PLENTY, ProxyBounds::default())).await;
    assert_eq!(relay.ask(get("/v1/models")).await.json()["data"][0]["id"], "fixed");
    assert_eq!(server.asked(), [""; 0]);
    let open = proxy_with(&server.url(), PLENTY, ProxyBounds::default(), KeyHeader::Bearer, None);
    assert_eq!(Relay::of(&open).await.ask(get("/v1/models")).await.status, 200);
    assert_eq!(server.asked(), ["/v1/models"]);
}

#[tokio::test]
async fn a_spent_budget_is_said_and_the_endpoint_no_longer_asked() {
    let server = chatting().await;
    for (allowed, times, words) in [
        (Allowed { requests: 2, ..PLENTY }, 2, "2 requests"),
        (Allowed { prompt_tokens: 20, ..PLENTY }, 3, "read 20 tokens"),
        (Allowed { generated_tokens: 5, ..PLENTY }, 2, "write 5 tokens"),
        // How many bytes an exchange has depends on the port.
        (Allowed { bytes: 250, ..PLENTY }, 0, "250 bytes"),
    ] {
        let proxy = proxy(&server.url(), allowed, ProxyBounds::default());
        let mut relay = Relay::of(&proxy).await;
        let before = server.asked().len();
        let mut last = None;
        for _ in 0..4 {
            last = Some(relay.chat(&json!({"messages": []})).await);
        }
        let last = last.unwrap();
        assert_eq!((last.status, last.kind().as_str()), (402, "budget_spent"), "{words}");
        assert!(last.body.contains(words), "{}", last.body);
        let asked = server.asked().len() - before;
        assert!(asked == times || (times == 0 && asked < 4), "{words}: {asked}");
        assert!(proxy.budget.spent().is_some());
    }
}

#[tokio::test]
async fn an_answer_is_cut_where_the_budget_ends() {
    let server = OpenAiServer::start(Arc::new(Echo::new()), Manners { key: Some(KEY.into()), ..Manners::default() })
        .await
        .unwrap();
    let allowed = Allowed { generated_tokens: 20, ..PLENTY };
    let proxy = proxy_with(&server.root(), allowed, ProxyBounds::default(), KeyHeader::Bearer, Some("echo"));
    let mut relay = Relay::of(&proxy).await;
    let said = "word ".repeat(1_000);
    let asked = json!({"messages": [{"role": "user", "content": said}], "stream": true});
    let reply = relay.chat(&asked).await;
    assert_eq!(reply.status, 200);
    assert!(!reply.body.contains("[DONE]"));
    assert_eq!(proxy.budget.usage().generated_tokens, 20);
    assert_eq!(relay.chat(&asked).await.status, 402);
    // With its limit the endpoint itself stops in time.
    let proxy = proxy_with(&server.root(), allowed, ProxyBounds::default(), KeyHeader::Bearer, Some("echo"));
    let mut limited = asked.clone();
    limited["max_tokens"] = json!(1_000);
    let reply = Relay::of(&proxy).await.chat(&limited).await;
    assert!(reply.body.contains("[DONE]"), "{}", reply.body);
    assert_eq!(proxy.budget.usage().generated_tokens, 20);
}

#[tokio::test]
async fn an_agent_that_goes_away_ends_the_question_at_the_endpoint() {
    let echo = Echo::new().gated();
    let server = OpenAiServer::start(Arc::new(echo.clone()), Manners { key: Some(KEY.into()), ..Manners::default() })
        .await
        .unwrap();
    let proxy = proxy_with(&server.root(), PLENTY, ProxyBounds::default(), KeyHeader::Bearer, Some("echo"));
    let mut relay = Relay::of(&proxy).await;
    let asked = json!({"messages": [{"role": "user", "content": "a b"}], "stream": true});
    let id = relay.connect(post("/v1/chat/completions", &asked).as_bytes()).await;
    echo.wait_for_runs(1).await;
    relay.send(Kind::Reset, id, &[]).await;
    server.wait_for_abandoned(1).await;
    // And so does one whose cell is gone.
    relay.connect(post("/v1/chat/completions", &asked).as_bytes()).await;
    echo.wait_for_runs(2).await;
    assert!(matches!(relay.hang_up().await, Broken::Closed | Broken::Pipe(_)));
    server.wait_for_abandoned(2).await;
}

#[tokio::test]
async fn several_questions_come_over_one_connection_and_several_connections() {
    let server = chatting().await;
    let mut relay = Relay::of(&proxy(&server.url(), PLENTY, ProxyBounds::default())).await;
    let one = post("/v1/chat/completions", &json!({"messages": []}));
    let kept = one.replace("connection: close\r\n", "");
    let ids = [relay.connect(format!("{kept}{kept}{one}").as_bytes()).await, relay.connect(one.as_bytes()).await];
    let bodies = ids.map(|id| id);
    let first = relay.answer(bodies[0]).await;
    assert_eq!(first.body.matches("hello").count(), 3);
    assert_eq!(relay.answer(bodies[1]).await.status, 200);
    assert_eq!(server.asked().len(), 4);
}
