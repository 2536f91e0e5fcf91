// Renders chats by Go's own text/template, with the values that Ollama gives to a template.
//
// It reads a JSON object from standard input, {"template": "…", "chats": [[{"role", "content"}]]},
// and writes a list of {"text"} or {"error"}.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

// Message is a turn of a chat.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Rendered is a chat as text, or why it could not be rendered.
type Rendered struct {
	Text  string `json:"text"`
	Error string `json:"error"`
}

// joined puts consecutive messages of a role together, with an empty line between them.
func joined(chat []Message) []*Message {
	var found []*Message
	for _, next := range chat {
		last := len(found) - 1
		if last < 0 || found[last].Role != next.Role {
			added := next
			found = append(found, &added)
			continue
		}
		found[last].Content += "\n\n" + next.Content
	}
	return found
}

func main() {
	var asked struct {
		Template string      `json:"template"`
		Chats    [][]Message `json:"chats"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	parsed := template.Must(template.New("").Option("missingkey=zero").Parse(asked.Template))
	answer := []Rendered{}
	for _, chat := range asked.Chats {
		var system []string
		for _, message := range chat {
			if message.Role == "system" {
				system = append(system, message.Content)
			}
		}
		values := map[string]any{
			"System": strings.Join(system, "\n\n"), "Messages": joined(chat), "Response": "",
		}
		var text strings.Builder
		if err := parsed.Execute(&text, values); err != nil {
			answer = append(answer, Rendered{Error: err.Error()})
			continue
		}
		answer = append(answer, Rendered{Text: text.String()})
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		panic(err)
	}
}
