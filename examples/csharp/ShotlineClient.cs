using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Threading;
using System.Threading.Tasks;

namespace Shotline.Example
{
    /// <summary>The gateway said no, or gave no answer in time.</summary>
    public sealed class ShotlineException : Exception
    {
        public ShotlineException(string message) : base(message)
        {
        }
    }

    /// <summary>What the line is told of an image.</summary>
    public sealed class Decision
    {
        public Decision(string code, string label, double probability, int version)
        {
            Code = code;
            Label = label;
            Probability = probability;
            Version = version;
        }

        /// <summary>ok, ng or undecidable.</summary>
        public string Code { get; }

        public string Label { get; }

        public double Probability { get; }

        /// <summary>The number of the version that answered.</summary>
        public int Version { get; }
    }

    /// <summary>
    /// A connection to a gateway. Make one and keep it: its connections stay open, which saves
    /// milliseconds on every request. Written in C# 7.3, so that it also builds for .NET Framework.
    /// </summary>
    public sealed class ShotlineClient : IDisposable
    {
        private const int FilesInARequest = 32;
        private const int Tries = 5;
        private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100);
        private readonly HttpClient http;

        public ShotlineClient(Uri address, string key)
        {
            http = new HttpClient { BaseAddress = address, Timeout = Timeout.InfiniteTimeSpan };
            http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", key);
        }

        public void Dispose()
        {
            http.Dispose();
        }

        /// <summary>
        /// Returns the decision on one image. The same Idempotency-Key goes with every try: where an
        /// answer was made and lost on its way, the gateway gives it again and records no second
        /// prediction.
        /// </summary>
        /// <param name="project">The project's id.</param>
        /// <param name="image">The bytes of a JPEG, PNG, BMP, TIFF or WebP file.</param>
        /// <param name="imageId">ASCII; comes back in the answer and is kept with it.</param>
        /// <param name="deadline">From now on, for all tries together.</param>
        public async Task<Decision> DecideAsync(
            string project, byte[] image, string imageId, TimeSpan deadline)
        {
            string key = Guid.NewGuid().ToString();
            string problem = "the deadline is too short";
            var clock = Stopwatch.StartNew();
            for (TimeSpan left = deadline; left > TimeSpan.Zero; left = deadline - clock.Elapsed)
            {
                TimeSpan pause = Pause;
                // The gateway does not begin with what would come too late.
                int milliseconds = Math.Max(1, (int)left.TotalMilliseconds);
                string path = $"v1/projects/{project}/predict?deadline_ms={milliseconds}";
                using (var request = new HttpRequestMessage(HttpMethod.Post, path))
                using (var cancel = new CancellationTokenSource(left))
                {
                    request.Content = new ByteArrayContent(image);
                    request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/octet-stream");
                    request.Headers.Add("Idempotency-Key", key);
                    request.Headers.Add("Image-Id", imageId);
                    try
                    {
                        using (HttpResponseMessage answer = await http.SendAsync(request, cancel.Token).ConfigureAwait(false))
                        {
                            string body = await answer.Content.ReadAsStringAsync().ConfigureAwait(false);
                            if (answer.IsSuccessStatusCode)
                            {
                                return ReadDecision(body);
                            }
                            problem = Describe(answer.StatusCode, body);
                            if (!WorthAnotherTry(answer.StatusCode))
                            {
                                break;
                            }
                            pause = answer.Headers.RetryAfter?.Delta ?? Pause;
                        }
                    }
                    catch (HttpRequestException error)
                    {
                        problem = error.Message;
                    }
                    catch (OperationCanceledException)
                    {
                        problem = $"no answer within {deadline.TotalSeconds} s";
                    }
                }
                TimeSpan rest = deadline - clock.Elapsed;
                if (rest > TimeSpan.Zero)
                {
                    await Task.Delay(pause < rest ? pause : rest).ConfigureAwait(false);
                }
            }
            throw new ShotlineException(problem);
        }

        /// <summary>Returns the id of the project of that name; null where there is none.</summary>
        public async Task<string> FindProjectAsync(string name)
        {
            string path = "v1/projects?name=" + Uri.EscapeDataString(name);
            JsonElement found = await CallAsync(HttpMethod.Get, path).ConfigureAwait(false);
            foreach (JsonElement project in found.GetProperty("items").EnumerateArray())
            {
                return project.GetProperty("id").GetString();
            }
            return null;
        }

        /// <summary>Makes a project with a class for each label and returns its id.</summary>
        public async Task<string> MakeProjectAsync(string name, IEnumerable<string> labels)
        {
            var classes = new List<Dictionary<string, string>>();
            foreach (string label in labels)
            {
                classes.Add(new Dictionary<string, string> { ["name"] = label });
            }
            var body = new Dictionary<string, object> { ["name"] = name, ["classes"] = classes };
            JsonElement made = await CallAsync(HttpMethod.Post, "v1/projects", body).ConfigureAwait(false);
            return made.GetProperty("id").GetString();
        }

        /// <summary>
        /// Uploads images of one class and returns a line for each that was rejected. A request is
        /// sent again where the connection broke: an image that is there already is a duplicate.
        /// </summary>
        public async Task<List<string>> UploadAsync(string project, string label, IList<string> paths)
        {
            var rejected = new List<string>();
            for (int start = 0; start < paths.Count; start += FilesInARequest)
            {
                int count = Math.Min(FilesInARequest, paths.Count - start);
                JsonElement answer = await UploadBatchAsync(project, label, paths, start, count).ConfigureAwait(false);
                foreach (JsonElement verdict in answer.GetProperty("results").EnumerateArray())
                {
                    if (verdict.GetProperty("verdict").GetString() == "rejected")
                    {
                        rejected.Add($"{verdict.GetProperty("file").GetString()}: {verdict.GetProperty("detail").GetString()}");
                    }
                }
            }
            return rejected;
        }

        /// <summary>Starts a tuning and returns its id.</summary>
        public async Task<string> StartTuningAsync(string project)
        {
            var body = new Dictionary<string, object> { ["seed"] = 1 };
            JsonElement tuning = await CallAsync(HttpMethod.Post, $"v1/projects/{project}/tunings", body).ConfigureAwait(false);
            return tuning.GetProperty("id").GetString();
        }

        /// <summary>Waits for the end of a tuning and returns the number of its version.</summary>
        public async Task<int> WaitForVersionAsync(string tuning, Action<string> progress)
        {
            while (true)
            {
                JsonElement now = await CallAsync(HttpMethod.Get, $"v1/tunings/{tuning}").ConfigureAwait(false);
                string state = now.GetProperty("state").GetString();
                switch (state)
                {
                    case "succeeded":
                        return now.GetProperty("model").GetProperty("version").GetInt32();
                    case "failed":
                        throw new ShotlineException(now.GetProperty("failure").GetProperty("problem").GetString());
                    case "cancelled":
                        throw new ShotlineException("The tuning was cancelled.");
                }
                JsonElement done = now.GetProperty("progress");
                progress(done.ValueKind == JsonValueKind.Null
                    ? state
                    : $"{done.GetProperty("phase").GetString()}: {done.GetProperty("done").GetInt32()} of {done.GetProperty("total").GetInt32()}");
                await Task.Delay(TimeSpan.FromSeconds(1)).ConfigureAwait(false);
            }
        }

        /// <summary>Puts a version into production.</summary>
        public Task PromoteAsync(string project, int version)
        {
            var body = new Dictionary<string, object> { ["version"] = version };
            return CallAsync(HttpMethod.Put, $"v1/projects/{project}/aliases/production", body);
        }

        private async Task<JsonElement> UploadBatchAsync(
            string project, string label, IList<string> paths, int start, int count)
        {
            for (int attempt = 1; ; attempt++)
            {
                using (var form = new MultipartFormDataContent())
                {
                    form.Add(new StringContent(label, Encoding.UTF8), "label");
                    for (int place = start; place < start + count; place++)
                    {
                        form.Add(new ByteArrayContent(File.ReadAllBytes(paths[place])), "files", Path.GetFileName(paths[place]));
                    }
                    try
                    {
                        return await CallAsync(HttpMethod.Post, $"v1/projects/{project}/images", form).ConfigureAwait(false);
                    }
                    catch (HttpRequestException) when (attempt < Tries)
                    {
                        // Below.
                    }
                }
                await Task.Delay(TimeSpan.FromSeconds(1 << attempt)).ConfigureAwait(false);
            }
        }

        private Task<JsonElement> CallAsync(HttpMethod method, string path, Dictionary<string, object> body)
        {
            string json = JsonSerializer.Serialize(body);
            return CallAsync(method, path, new StringContent(json, Encoding.UTF8, "application/json"));
        }

        private async Task<JsonElement> CallAsync(HttpMethod method, string path, HttpContent content = null)
        {
            using (var request = new HttpRequestMessage(method, path) { Content = content })
            using (HttpResponseMessage answer = await http.SendAsync(request).ConfigureAwait(false))
            {
                string body = await answer.Content.ReadAsStringAsync().ConfigureAwait(false);
                if (!answer.IsSuccessStatusCode)
                {
                    throw new ShotlineException(Describe(answer.StatusCode, body));
                }
                using (JsonDocument document = JsonDocument.Parse(body))
                {
                    return document.RootElement.Clone();
                }
            }
        }

        private static Decision ReadDecision(string body)
        {
            using (JsonDocument document = JsonDocument.Parse(body))
            {
                JsonElement answer = document.RootElement;
                return new Decision(
                    answer.GetProperty("decision").GetString(),
                    answer.GetProperty("label").GetString(),
                    answer.GetProperty("probability").GetDouble(),
                    answer.GetProperty("model").GetProperty("version").GetInt32());
            }
        }

        // Still at work on the same question; too many questions; not available now; a proxy's own error.
        private static bool WorthAnotherTry(HttpStatusCode status)
        {
            int code = (int)status;
            return code == 409 || code == 429 || code == 502 || code == 503;
        }

        // An error is problem+json, unless a proxy made it.
        private static string Describe(HttpStatusCode status, string body)
        {
            try
            {
                using (JsonDocument document = JsonDocument.Parse(body))
                {
                    JsonElement problem = document.RootElement;
                    return $"{(int)status}: {problem.GetProperty("detail").GetString()} {problem.GetProperty("fix").GetString()}";
                }
            }
            catch (Exception error) when (error is JsonException || error is KeyNotFoundException || error is InvalidOperationException)
            {
                return $"{(int)status}: {(body.Length > 200 ? body.Substring(0, 200) : body)}";
            }
        }
    }
}
