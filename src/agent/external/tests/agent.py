# Does what agents do: reads what it is told, asks its model (once whole, once in events), and writes a file.
import json, os, sys, urllib.request

instructions, out = sys.argv[1:3]
said = open(instructions).read()


def ask(stream):
    body = {"model": "whatever", "stream": stream, "messages": [{"role": "user", "content": said}]}
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        if not stream:
            return json.load(answer)["choices"][0]["message"]["content"]
        text = ""
        for line in answer:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["delta"].get("content") or ""
        return text


answers = [ask(False), ask(True)]
open(out, "w").write("|".join(answers))
